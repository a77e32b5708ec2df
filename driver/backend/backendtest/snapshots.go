package backendtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/fsck"
	"github.com/plinth-csi/plinth/driver/volume"
)

func (e *env) snapshotter(t *testing.T) backend.Snapshotter {
	t.Helper()
	s, ok := e.b.(backend.Snapshotter)
	if !ok {
		t.Fatal("this backend takes no snapshots")
	}
	return s
}

// testSnapshotAndRestore takes a snapshot under a consumer, writes on, and
// finds in the restored volume what was there at that time.
func testSnapshotAndRestore(t *testing.T, e *env) {
	b := e.snapshotter(t)
	s := e.spec("source")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	c = e.idle(t, s.ID, c, func() error { return second(b.Snapshot(t.Context(), s.ID, "snap", nil)) })
	for range 2 {
		snap, err := b.Snapshot(t.Context(), s.ID, "snap", nil)
		if err != nil || snap.ID != "snap" || e.Enforced && snap.Size != s.Size {
			t.Fatalf("Snapshot: %+v, %v", snap, err)
		}
		if c == nil {
			c = e.use(t, s.ID)
		}
		c.put(t, "after")
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID) // a snapshot does not need its volume
	e.reopen(t)
	b = e.snapshotter(t)

	larger := e.spec("restored")
	larger.Size *= 2
	for range 2 {
		info, err := b.Restore(t.Context(), "snap", larger, nil)
		if err != nil || e.Enforced && info.Size != larger.Size {
			t.Fatalf("Restore: %+v, %v", info, err)
		}
	}
	c = e.use(t, larger.ID)
	c.require(t, "before")
	if c.dir != "" {
		if found := names(t, c.dir); contains(found, "after") {
			t.Errorf("what was written after the snapshot is in it: %q", found)
		}
	}
	c.put(t, "own")
	e.done(t, larger.ID, c)

	smaller := e.spec("smaller")
	smaller.Size /= 2
	if e.Enforced { // else no size is known of it
		requireError(t, second(b.Restore(t.Context(), "snap", smaller, nil)), volume.ErrOutOfRange)
	}
	requireError(t, second(b.Restore(t.Context(), "absent", larger, nil)), volume.ErrNotFound)
	requireError(t, second(b.Snapshot(t.Context(), "absent", "other", nil)), volume.ErrNotFound)
	requireError(t, second(b.Snapshot(t.Context(), "restored", "../x", nil)), volume.ErrInvalid)
	e.requireSnapshots(t, "snap")
	for range 2 {
		if err := b.RemoveSnapshot(t.Context(), "snap"); err != nil {
			t.Fatal(err)
		}
	}
	requireError(t, second(b.GetSnapshot(t.Context(), "snap")), volume.ErrNotFound)
	c = e.use(t, larger.ID) // nor does a restored volume its snapshot
	if c.dir != "" {        // a device has one place to write to
		c.require(t, "before")
	}
	c.require(t, "own")
	e.done(t, larger.ID, c)
	e.remove(t, larger.ID)
}

// testClone clones a volume under its consumer; the two go their own ways.
func testClone(t *testing.T, e *env) {
	b := e.snapshotter(t)
	s, copied := e.spec("source"), e.spec("clone")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	c = e.idle(t, s.ID, c, func() error { return second(b.Clone(t.Context(), s.ID, copied, nil)) })
	if info, err := b.Clone(t.Context(), s.ID, copied, nil); err != nil || e.Enforced && info.Size != s.Size {
		t.Fatalf("Clone: %+v, %v", info, err)
	}
	if c == nil {
		c = e.use(t, s.ID)
	}
	c.put(t, "after")
	d := e.use(t, copied.ID) // both are mounted now
	d.require(t, "before")
	requireOwnUUID(t, c, d)
	if e.Enforced && d.dir != "" {
		if n, err := d.fill(4 * s.Size); !isFull(err) || n > s.Size {
			t.Errorf("%d bytes went into a clone of %d bytes: %v", n, s.Size, err)
		}
	}
	e.done(t, s.ID, c)
	e.done(t, copied.ID, d)
	e.remove(t, s.ID)
	d = e.use(t, copied.ID)
	d.require(t, "before")
	e.done(t, copied.ID, d)
	e.remove(t, copied.ID)
}

// idle ends the use of a volume, and gives nil, where the backend copies none
// in use: taking a copy is refused then.
func (e *env) idle(t *testing.T, id volume.ID, c *consumer, take func() error) *consumer {
	t.Helper()
	if !e.CopiesIdle {
		return c
	}
	requireError(t, take(), volume.ErrInUse)
	e.done(t, id, c)
	return nil
}

// requireOwnUUID: two filesystems on devices are told apart by the machine.
func requireOwnUUID(t *testing.T, a, b *consumer) {
	t.Helper()
	if a.device == "" || a.dir == "" {
		return
	}
	var ids [2][16]byte
	for i, c := range []*consumer{a, b} {
		f, err := os.Open(c.device)
		if err != nil {
			t.Fatal(err)
		}
		ids[i], err = fsck.UUID(f, c.fsType)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] == ids[1] {
		t.Errorf("source and copy have the same UUID %x", ids[0])
	}
}

// testSnapshotFrees: bytes that only a snapshot holds come back with it.
func testSnapshotFrees(t *testing.T, e *env) {
	b := e.snapshotter(t)
	s := e.spec("source")
	before := e.free(t)
	e.ensure(t, s)
	c := e.use(t, s.ID)
	if n, err := c.fill(s.Size / 2); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	c = e.idle(t, s.ID, c, func() error { return second(b.Snapshot(t.Context(), s.ID, "snap", nil)) })
	if err := second(b.Snapshot(t.Context(), s.ID, "snap", nil)); err != nil {
		t.Fatal(err)
	}
	if c != nil {
		e.done(t, s.ID, c)
	}
	e.remove(t, s.ID)
	if held := before - e.free(t); held < s.Size/2-e.Overhead {
		t.Errorf("the snapshot holds %d bytes, %d were written", held, s.Size/2)
	}
	if err := b.RemoveSnapshot(t.Context(), "snap"); err != nil {
		t.Fatal(err)
	}
	if lost := before - e.free(t); lost > e.Overhead {
		t.Errorf("%d bytes are not back", lost)
	}
}

// testSnapshotCuts is testCuts for what makes and removes snapshots and copies.
func testSnapshotCuts(t *testing.T, e *env) {
	s, copied := e.spec("source"), e.spec("cut")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	e.done(t, s.ID, c)
	take := func(ctx context.Context, b backend.Backend) error {
		return second(b.(backend.Snapshotter).Snapshot(ctx, s.ID, "snap", nil))
	}
	drop := func(ctx context.Context, b backend.Backend) error {
		return errors.Join(b.Remove(ctx, copied.ID), b.(backend.Snapshotter).RemoveSnapshot(ctx, "snap"))
	}
	for _, c := range []struct {
		name       string
		before, do func(context.Context, backend.Backend) error
		copied     bool
		snapshots  []volume.ID
	}{
		{"take", drop, take, false, []volume.ID{"snap"}},
		{"restore", func(ctx context.Context, b backend.Backend) error { return errors.Join(drop(ctx, b), take(ctx, b)) },
			func(ctx context.Context, b backend.Backend) error {
				return second(b.(backend.Snapshotter).Restore(ctx, "snap", copied, nil))
			}, true, []volume.ID{"snap"}},
		{"clone", drop, func(ctx context.Context, b backend.Backend) error {
			return second(b.(backend.Snapshotter).Clone(ctx, s.ID, copied, nil))
		}, true, nil},
		{"drop", take, drop, false, nil},
		{"capture", drop, captureAnew, false, []volume.ID{"snap"}},
	} {
		if c.name == "capture" && !e.Freezes {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				if n > maxCuts {
					t.Fatalf("not through after %d operations", n)
				}
				if err := c.before(t.Context(), e.b); err != nil {
					t.Fatal(err)
				}
				if !e.cutOnce(t, n, c.do, func(bool) bool { return true }) {
					break
				}
				if err := c.do(t.Context(), e.b); err != nil {
					t.Fatalf("repeated after a cut before operation %d: %v", n, err)
				}
				e.requireSnapshots(t, c.snapshots...)
				if c.copied {
					u := e.use(t, copied.ID)
					u.require(t, "before")
					e.done(t, copied.ID, u)
				}
				e.checkInvariants(t)
			}
		})
	}
	if err := drop(t.Context(), e.b); err != nil {
		t.Fatal(err)
	}
}

func (e *env) requireSnapshots(t *testing.T, want ...volume.ID) {
	t.Helper()
	found, err := e.snapshotter(t).ListSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	onDisk := names(t, filepath.Join(e.pool.Dir, "snapshots"))
	if len(found) != len(want) || len(onDisk) != len(want) {
		t.Fatalf("ListSnapshots says %+v, on disk are %q, want %q", found, onDisk, want)
	}
	for _, id := range want {
		if err := second(e.snapshotter(t).GetSnapshot(t.Context(), id)); err != nil {
			t.Error(err)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
