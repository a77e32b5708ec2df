package pool

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/volume"
)

// testCapacity is the size, in bytes, of the pools in these tests.
const testCapacity = 10 << 30

// testOptions are one pool of memory over dir.
func testOptions(dir string) Options {
	return Options{
		Config: Config{Pools: []PoolConfig{{Name: "fast", Path: dir, Backend: BackendMemory, Overcommit: 1, Line: 2}}},
		Node:   "node-1", ClusterID: "c1", Log: slog.New(slog.DiscardHandler),
		Backends: map[string]OpenBackend{BackendMemory: openMemory},
	}
}

func openMemory(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
	return memory.Open(ctx, memory.Options{Dir: cfg.Path, Capacity: testCapacity})
}

func open(t *testing.T, o Options) *Manager {
	t.Helper()
	m, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func request(name string, size int64) volume.Request {
	return volume.Request{Spec: volume.Spec{Size: size, Mode: volume.Filesystem}, Name: name}
}

func create(t *testing.T, m *Manager, name string, size int64) volume.Volume {
	t.Helper()
	v, err := m.Create(t.Context(), request(name, size))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var errCut = errors.New("cut")

// cutter ends the world at its n-th step: nothing that is tried from then on
// has any effect. A negative n never cuts.
type cutter struct {
	mu  sync.Mutex
	n   int
	cut bool
}

func (c *cutter) step(string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut || c.n == 0 {
		c.cut = true
		return errCut
	}
	c.n--
	return nil
}

// cutBackend is a backend that is cut before a call has any effect, or after
// all of it and before its caller learns of it.
type cutBackend struct {
	backend.Opened
	*cutter
}

func (b cutBackend) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	if err := b.step("before Ensure"); err != nil {
		return volume.Info{}, err
	}
	info, err := b.Opened.Ensure(ctx, s)
	return info, errors.Join(err, b.step("after Ensure"))
}

func (b cutBackend) Remove(ctx context.Context, id volume.ID) error {
	if err := b.step("before Remove"); err != nil {
		return err
	}
	return errors.Join(b.Opened.Remove(ctx, id), b.step("after Remove"))
}

func (b cutBackend) snapshotter() backend.Snapshotter { return b.Opened.(backend.Snapshotter) }

func (b cutBackend) Snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) (backend.Snapshot, error) {
	if err := b.step("before Snapshot"); err != nil {
		return backend.Snapshot{}, err
	}
	s, err := b.snapshotter().Snapshot(ctx, src, id, p)
	return s, errors.Join(err, b.step("after Snapshot"))
}

func (b cutBackend) RemoveSnapshot(ctx context.Context, id volume.ID) error {
	if err := b.step("before RemoveSnapshot"); err != nil {
		return err
	}
	return errors.Join(b.snapshotter().RemoveSnapshot(ctx, id), b.step("after RemoveSnapshot"))
}

func (b cutBackend) GetSnapshot(ctx context.Context, id volume.ID) (backend.Snapshot, error) {
	return b.snapshotter().GetSnapshot(ctx, id)
}

func (b cutBackend) ListSnapshots(ctx context.Context) ([]backend.Snapshot, error) {
	return b.snapshotter().ListSnapshots(ctx)
}

func (b cutBackend) Restore(ctx context.Context, id volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	if err := b.step("before Restore"); err != nil {
		return volume.Info{}, err
	}
	info, err := b.snapshotter().Restore(ctx, id, s, p)
	return info, errors.Join(err, b.step("after Restore"))
}

func (b cutBackend) Clone(ctx context.Context, src volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	if err := b.step("before Clone"); err != nil {
		return volume.Info{}, err
	}
	info, err := b.snapshotter().Clone(ctx, src, s, p)
	return info, errors.Join(err, b.step("after Clone"))
}

func (b cutBackend) Freezes() error { return b.Opened.(backend.Freezer).Freezes() }

func (b cutBackend) Prepare(ctx context.Context, src, id volume.ID) (backend.Capture, error) {
	if err := b.step("Prepare"); err != nil {
		return nil, err
	}
	c, err := b.Opened.(backend.Freezer).Prepare(ctx, src, id)
	return cutCapture{c, b.cutter}, err
}

// cutCapture is cutBackend for a capture. After a cut nobody thaws.
type cutCapture struct {
	backend.Capture
	*cutter
}

func (c cutCapture) Freeze() error {
	if err := c.step("before Freeze"); err != nil {
		return err
	}
	return errors.Join(c.Capture.Freeze(), c.step("after Freeze"))
}

func (c cutCapture) Cut() error {
	if err := c.step("before Cut"); err != nil {
		return err
	}
	return errors.Join(c.Capture.Cut(), c.step("after Cut"))
}

func (c cutCapture) Thaw() error {
	if err := c.step("before Thaw"); err != nil {
		return err
	}
	return errors.Join(c.Capture.Thaw(), c.step("after Thaw"))
}

func (c cutCapture) Finish(ctx context.Context) (backend.Snapshot, error) {
	if err := c.step("before Finish"); err != nil {
		return backend.Snapshot{}, err
	}
	s, err := c.Capture.Finish(ctx)
	return s, errors.Join(err, c.step("after Finish"))
}

func (c cutCapture) Close() error {
	if err := c.step("Close"); err != nil {
		return err
	}
	return c.Capture.Close()
}

// cutOptions are testOptions with everything that changes the disk cut at c.
func cutOptions(dir string, c *cutter) Options {
	o := testOptions(dir)
	o.step = c.step
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return cutBackend{b, c}, err
	}}
	return o
}
