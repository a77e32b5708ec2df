//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// errHalf: something is there that nobody was told of, or not whole.
var errHalf = errors.New("half")

// afterCut compares what is served after a cut with what was acknowledged, and
// what consumers still have mounted with what they wrote.
func (l *load) afterCut(ctx context.Context) error {
	there, err := l.node.csi.volumes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range l.workers {
		for id, v := range w.model.volumes {
			got, listed := there[id]
			delete(there, id)
			errs = append(errs, v.compare(id, got.size, listed))
			if listed && v.published && (v.pending == nil || v.pending.Kind != unpublish) {
				errs = append(errs, w.verify(id))
			}
		}
	}
	for id := range there {
		errs = append(errs, fmt.Errorf("%w: volume %s is served, and nobody has asked for it or it was deleted", errHalf, id))
	}
	return errors.Join(append(errs, l.snapshotsAfterCut(ctx))...)
}

func (l *load) snapshotsAfterCut(ctx context.Context) error {
	if !l.snapshots {
		return nil
	}
	there, err := l.node.csi.snapshots(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range l.workers {
		for id, s := range w.model.snapshots {
			got, listed := there[id]
			delete(there, id)
			sure := s.pending == nil
			if sure && (!listed || !got.ready || got.size != s.source.size) {
				errs = append(errs, fmt.Errorf("%w: snapshot %s of %d bytes: listed is %t, %+v", errLost, id, s.source.size, listed, got))
			}
		}
	}
	for id := range there {
		errs = append(errs, fmt.Errorf("%w: snapshot %s is served, and nobody has asked for it or it was deleted", errHalf, id))
	}
	return errors.Join(errs...)
}

// compare says in what a volume is not what was acknowledged.
func (v *volumeState) compare(id string, size int64, listed bool) error {
	var pending op
	if v.pending != nil {
		pending = *v.pending
	}
	switch {
	case !v.there || pending.Kind == remove:
		return nil // either; whether it is whole is seen when it is used
	case !listed:
		return fmt.Errorf("%w: volume %s is not served", errLost, id)
	case size == v.size, pending.Kind == expand && size == pending.Size:
		return nil
	}
	return fmt.Errorf("%w: volume %s has %d bytes and not %d (pending: %+v)", errLost, id, size, v.size, pending)
}

// resumeAll ends what was cut.
func (l *load) resumeAll(ctx context.Context) error {
	for _, w := range l.workers {
		for found := true; found; {
			var err error
			if found, err = w.resume(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle looks into every volume and snapshot, and compares the machine with
// the journal. Nothing is pending.
func (l *load) settle(ctx context.Context) error {
	if err := l.afterCut(ctx); err != nil {
		return err
	}
	for _, w := range l.workers {
		if err := w.lookIntoAll(ctx); err != nil {
			return fmt.Errorf("worker %d: %w", w.number, err)
		}
	}
	return l.invariants(ctx)
}

// lookIntoAll publishes every volume and reads it, and every snapshot's copy.
func (w *worker) lookIntoAll(ctx context.Context) error {
	for _, id := range w.model.ids() {
		if err := w.lookInto(ctx, id); err != nil {
			return err
		}
	}
	for _, id := range w.model.snapshotIDs() {
		o := copied(op{Kind: create, ID: w.id("v")}, id, false, w.model)
		if err := w.do(ctx, o); err != nil {
			return err
		}
		if w.model.volumes[o.ID] == nil {
			continue // no room for it
		}
		if err := errors.Join(w.lookInto(ctx, o.ID), w.drop(ctx, o.ID)); err != nil {
			return fmt.Errorf("snapshot %s: %w", id, err)
		}
	}
	return nil
}

func (w *worker) lookInto(ctx context.Context, id string) error {
	v := w.model.volumes[id]
	if !v.staged {
		if err := w.do(ctx, op{Kind: stage, ID: id}); err != nil {
			return err
		}
	}
	if !v.published {
		if err := w.do(ctx, op{Kind: publish, ID: id}); err != nil {
			return err
		}
	}
	if err := w.verify(id); err != nil {
		return err
	}
	// It can be written to, and is not only there to be read.
	if err := w.do(ctx, op{Kind: write, ID: id, Slot: 0, Seed: w.rand.Uint64() | 2}); err != nil {
		return err
	}
	return w.verify(id)
}

// drop takes a volume out of use and deletes it.
func (w *worker) drop(ctx context.Context, id string) error {
	v := w.model.volumes[id]
	for _, step := range []struct {
		needed bool
		kind   kind
	}{{v.published, unpublish}, {v.staged, unstage}, {true, remove}} {
		if !step.needed {
			continue
		}
		if err := w.do(ctx, op{Kind: step.kind, ID: id}); err != nil {
			return err
		}
	}
	return nil
}

// clear deletes everything, and expects the pool as it was at first.
func (l *load) clear(ctx context.Context) error {
	for _, w := range l.workers {
		for _, id := range w.model.ids() {
			if err := w.drop(ctx, id); err != nil {
				return err
			}
		}
		for _, id := range w.model.snapshotIDs() {
			if err := w.do(ctx, op{Kind: unsnapshot, ID: id}); err != nil {
				return err
			}
		}
	}
	return l.invariants(ctx)
}

// all are the volumes and snapshots that there have to be now.
func (l *load) all() (volumes map[string]*volumeState, snapshots map[string]*snapshotState) {
	volumes, snapshots = map[string]*volumeState{}, map[string]*snapshotState{}
	for _, w := range l.workers {
		maps.Copy(volumes, w.model.volumes)
		maps.Copy(snapshots, w.model.snapshots)
	}
	return volumes, snapshots
}

// same compares two sets of names.
func same(what string, got, want []string) error {
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%w: %s are %q, want %q", errHalf, what, got, want)
	}
	return nil
}
