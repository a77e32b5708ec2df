package backendtest

import (
	"context"
	"errors"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// captureAnew takes the snapshot "snap" of the volume "source" step by step.
func captureAnew(ctx context.Context, b backend.Backend) (err error) {
	if err := b.(backend.Snapshotter).RemoveSnapshot(ctx, "snap"); err != nil {
		return err
	}
	c, err := b.(backend.Freezer).Prepare(ctx, "source", "snap")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, step := range []func() error{c.Freeze, c.Cut, c.Thaw} {
		if err := step(); err != nil {
			return err
		}
	}
	return second(c.Finish(ctx))
}

// testCapture captures two volumes while both are held still, writes on, and
// finds in what is restored what was there before. A Block volume in use may be
// refused.
func testCapture(t *testing.T, e *env) {
	f, ok := e.b.(backend.Freezer)
	if !ok || f.Freezes() != nil {
		t.Fatal("this backend holds no volumes still")
	}
	ids := []volume.ID{"one", "two"}
	users, captures := map[volume.ID]*consumer{}, map[volume.ID]backend.Capture{}
	for _, id := range ids {
		e.ensure(t, e.spec(id))
		users[id] = e.use(t, id)
		users[id].put(t, "before")
		c, err := f.Prepare(t.Context(), id, id)
		if e.Spec.Mode == volume.Block && errors.Is(err, volume.ErrInUse) {
			e.done(t, id, users[id])
			users[id] = nil
			c, err = f.Prepare(t.Context(), id, id)
		}
		if err != nil {
			t.Fatalf("Prepare: %v", err)
		}
		captures[id] = c
	}
	for _, step := range []func(backend.Capture) error{backend.Capture.Freeze, backend.Capture.Cut, backend.Capture.Thaw, backend.Capture.Thaw} {
		for _, id := range ids {
			if err := step(captures[id]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range ids {
		if users[id] == nil {
			users[id] = e.use(t, id)
		}
		users[id].put(t, "after")
		if s, err := captures[id].Finish(t.Context()); err != nil || s.ID != id || e.Enforced && s.Size != e.Spec.Size {
			t.Fatalf("Finish: %+v, %v", s, err)
		}
		if err := captures[id].Close(); err != nil {
			t.Fatal(err)
		}
		requireError(t, second(f.Prepare(t.Context(), id, id)), volume.ErrExists)
		requireError(t, second(f.Prepare(t.Context(), id, "../x")), volume.ErrInvalid)
		e.done(t, id, users[id])
		e.remove(t, id)
	}
	requireError(t, second(f.Prepare(t.Context(), "absent", "other")), volume.ErrNotFound)
	e.reopen(t)
	b := e.snapshotter(t)
	for _, id := range ids {
		if err := second(b.Restore(t.Context(), id, e.spec("restored"), nil)); err != nil {
			t.Fatal(err)
		}
		c := e.use(t, "restored")
		c.require(t, "before")
		if c.dir != "" && contains(names(t, c.dir), "after") {
			t.Errorf("what was written after %s was captured is in it", id)
		}
		e.done(t, "restored", c)
		e.remove(t, "restored")
		if err := b.RemoveSnapshot(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	e.requireSnapshots(t)
}
