package pool

import (
	"context"
	"errors"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// slowBackend copies only when it is let, and says that it has begun.
type slowBackend struct {
	cutBackend
	let chan error // nil lets a copy go on, an error fails it
}

func (b slowBackend) slow(ctx context.Context, p backend.Progress) error {
	if err := errors.Join(p.Report(ctx, 0), p.Report(ctx, 100)); err != nil {
		return err
	}
	select {
	case err := <-b.let:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b slowBackend) Snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) (backend.Snapshot, error) {
	if err := b.slow(ctx, p); err != nil {
		return backend.Snapshot{}, err
	}
	return b.cutBackend.Snapshot(ctx, src, id, nil)
}

func (b slowBackend) Restore(ctx context.Context, id volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	if err := b.slow(ctx, p); err != nil {
		return volume.Info{}, err
	}
	return b.cutBackend.Restore(ctx, id, s, nil)
}

func slowOptions(dir string, let chan error) Options {
	o := testOptions(dir)
	o.patience = 1
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return slowBackend{cutBackend{b, &cutter{n: -1}}, let}, err
	}}
	return o
}

// TestSlowSnapshot: a copy goes on in the background, tells how far it is,
// lets its volume be mounted and keeps it from being deleted; its failure is
// told once; it can be given up, and closing ends it without a trace.
func TestSlowSnapshot(t *testing.T) {
	dir, let := t.TempDir(), make(chan error)
	m := open(t, slowOptions(dir, let))
	create(t, m, "a", gi)
	s := take(t, m, "s", "a")
	if s.Ready || s.Copied != 100 {
		t.Errorf("at first %+v", s)
	}
	if s, err := m.GetSnapshot(t.Context(), "s"); err != nil || s.Ready || s.Copied != 100 {
		t.Errorf("get %+v, %v", s, err)
	}
	if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list %+v, %v", list, err)
	}
	release, err := m.Hold("a")
	if err != nil {
		t.Fatalf("it cannot be mounted: %v", err)
	}
	release()
	for what, err := range map[string]error{
		"delete":  m.Delete(t.Context(), "a"),
		"restore": second(m.Create(t.Context(), from("v", gi, volume.Content{Snapshot: "s"}))),
	} {
		if !errors.Is(err, volume.ErrBusy) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if st := m.Pools(t.Context())[0]; st.Reserved != 2*gi {
		t.Errorf("reserved %d while it is copied", st.Reserved)
	}
	w := m.slots()[0].pool.jobs.peek(snapshotKey("s"))
	failed := errors.New("failed")
	let <- failed
	<-w.done
	if _, err := m.CreateSnapshot(t.Context(), snapshot("s", "a")); !errors.Is(err, failed) {
		t.Errorf("nobody is told: %v", err)
	}
	agree(t, m, "failed")
	if s := take(t, m, "s", "a"); s.Ready {
		t.Errorf("begun again: %+v", s)
	}
	w = m.slots()[0].pool.jobs.peek(snapshotKey("s"))
	let <- nil
	<-w.done
	if s := take(t, m, "s", "a"); !s.Ready {
		t.Errorf("in the end %+v", s)
	}
	agree(t, m, "whole")
	take(t, m, "given-up", "a")
	if err := m.DeleteSnapshot(t.Context(), "given-up"); err != nil {
		t.Error(err)
	}
	agree(t, m, "given up")
	take(t, m, "closed", "a")
	m.Close()
	m = open(t, testOptions(dir))
	agree(t, m, "closed")
}

// TestSlowRestore: a request waits for as long as it can, and finds the volume
// when it asks again; deleting gives the copy up.
func TestSlowRestore(t *testing.T) {
	dir, let := t.TempDir(), make(chan error)
	m := open(t, testOptions(dir))
	create(t, m, "a", gi)
	take(t, m, "s", "a")
	m.Close()
	m = open(t, slowOptions(dir, let))
	req := from("v", gi, volume.Content{Snapshot: "s"})
	impatient, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { asked <- second(m.Create(impatient, req)) }()
	w := awaitJob(t, m, volumeKey("v"))
	<-w.began
	cancel()
	if err := <-asked; !errors.Is(err, volume.ErrBusy) {
		t.Errorf("the first: %v", err)
	}
	for what, err := range map[string]error{
		"get":             second(m.Get(t.Context(), "v")),
		"delete snapshot": m.DeleteSnapshot(t.Context(), "s"),
		"another":         second(m.Create(t.Context(), from("v", 2*gi, volume.Content{Snapshot: "s"}))),
	} {
		if err == nil {
			t.Errorf("%s is granted while it is copied", what)
		}
	}
	let <- nil
	if v, err := m.Create(t.Context(), req); err != nil || v.Size != gi {
		t.Errorf("the second: %+v, %v", v, err)
	}
	agree(t, m, "restored")
	go func() { asked <- second(m.Create(t.Context(), from("w", gi, volume.Content{Snapshot: "s"}))) }()
	<-awaitJob(t, m, volumeKey("w")).began
	m.slots()[0].pool.jobs.cancel(volumeKey("w"))
	if err := <-asked; err == nil {
		t.Error("what was given up is there")
	}
	if err := m.Delete(t.Context(), "w"); err != nil {
		t.Error(err)
	}
	agree(t, m, "given up")
}

// awaitJob waits for a job to be there.
func awaitJob(t *testing.T, m *Manager, key string) *job {
	t.Helper()
	for t.Context().Err() == nil {
		if w := m.slots()[0].pool.jobs.peek(key); w != nil {
			return w
		}
	}
	t.Fatal("the job never began")
	return nil
}

// TestSharedSnapshots: what one node copies the other neither removes nor
// undoes, and sees when it is whole.
func TestSharedSnapshots(t *testing.T) {
	dir, let := t.TempDir(), make(chan error)
	slow := func(node string) Options {
		o := slowOptions(dir, let)
		o.Node, o.Config.Pools[0].Shared = node, true
		return o
	}
	one, two := open(t, slow("node-1")), open(t, slow("node-2"))
	create(t, one, "a", gi)
	if s := take(t, one, "s", "a"); s.Ready || s.Node != "" {
		t.Errorf("%+v", s)
	}
	for what, err := range map[string]error{
		"take": second(two.CreateSnapshot(t.Context(), snapshot("s", "a"))), "delete": two.DeleteSnapshot(t.Context(), "s"),
		"delete the volume": two.Delete(t.Context(), "a"), "expand it": second(two.Expand(t.Context(), "a", 2*gi)),
	} {
		if !errors.Is(err, volume.ErrBusy) {
			t.Errorf("%s, while the other node copies: %v", what, err)
		}
	}
	w := one.slots()[0].pool.jobs.peek(snapshotKey("s"))
	let <- nil
	<-w.done
	if s, err := two.GetSnapshot(t.Context(), "s"); err != nil || !s.Ready {
		t.Errorf("%+v, %v", s, err)
	}
	if a, b := one.Pools(t.Context())[0].Reserved, two.Pools(t.Context())[0].Reserved; a != b || a < gi {
		t.Errorf("%d bytes are reserved, and %d", a, b)
	}
	if err := errors.Join(two.DeleteSnapshot(t.Context(), "s"), two.Delete(t.Context(), "a")); err != nil {
		t.Error(err)
	}
	agree(t, one, "in the end")
}
