package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// This file is what a pool does with one snapshot. The manager holds the
// snapshot's lock while it calls, and has checked the pool's identity.

// snapshotter is the backend, if it copies volumes.
func (p *pool) snapshotter() (backend.Snapshotter, error) {
	s, ok := p.backend.(backend.Snapshotter)
	if !ok {
		return nil, fmt.Errorf("%w: pool %s (%s) has no snapshots and no copies of volumes", volume.ErrUnsupported, p.cfg.Name, p.kind)
	}
	return s, nil
}

// takeSnapshot promises the bytes, writes the record and begins to take the
// snapshot. A failure that nobody was told of is told first.
func (p *pool) takeSnapshot(ctx context.Context, req volume.SnapshotRequest) (*job, error) {
	if failed := p.jobs.find(snapshotKey(req.ID)); failed != nil {
		return failed, nil
	}
	s, err := p.snapshotter()
	if err != nil {
		return nil, err
	}
	unlock, err := p.lockSnapshot(req.ID)
	if err != nil {
		return nil, err
	}
	src, err := p.keepSource(volume.Content{Volume: req.Volume})
	if err != nil {
		unlock()
		return nil, err
	}
	r, err := p.newSnapshot(ctx, s, req, "")
	var w *job
	if err == nil {
		w, err = p.jobs.start(snapshotKey(r.ID), func(ctx context.Context, w *job) error {
			defer unlock()
			defer src.release()
			return p.capture(ctx, s, r, src.watch(w))
		})
	}
	if err != nil {
		src.release()
		unlock()
	}
	return w, err
}

// kept is a source that is kept as it is while it is copied.
type kept struct {
	letGo  func() // lets others mount and unmount it
	unlock func()
}

// keepSource keeps a volume from being mounted or unmounted until the copy
// begins to move bytes, and a volume or snapshot from being removed or grown
// until release.
func (p *pool) keepSource(c volume.Content) (kept, error) {
	letGo := func() {}
	if c.Volume != "" {
		release, err := p.hold(c.Volume)
		if err != nil {
			return kept{}, err
		}
		letGo = release // may be called again
	}
	unlock, err := p.lockSource(c)
	if err != nil {
		letGo()
	}
	return kept{letGo, unlock}, err
}

func (k kept) release() {
	k.letGo()
	k.unlock()
}

// watch is the progress of the job that copies the source.
func (k kept) watch(w *job) backend.Progress {
	return func(ctx context.Context, bytes int64) error {
		k.letGo()
		return w.progress(ctx, bytes)
	}
}

// newSnapshot promises the bytes of a snapshot, of a group or of none (""), and
// writes its record. The volume is locked, and its record is read anew.
func (p *pool) newSnapshot(ctx context.Context, s backend.Snapshotter, req volume.SnapshotRequest, group volume.ID) (snapshotRecord, error) {
	e, err := p.records.get(req.Volume)
	if err == nil && (e.broken != "" || e.State != ready) {
		err = volume.ErrNotFound
	}
	if err != nil {
		return snapshotRecord{}, fmt.Errorf("volume %s: %w", req.Volume, err)
	}
	_, err = s.GetSnapshot(ctx, req.ID)
	if err == nil {
		err = fmt.Errorf("%w: pool %s has data of that ID and no record of it; move the data away", volume.ErrExists, p.cfg.Name)
	}
	if !errors.Is(err, volume.ErrNotFound) {
		return snapshotRecord{}, err
	}
	r := snapshotRecord{
		State: creating, ID: req.ID, Name: req.Name, Volume: req.Volume, Group: group, Pool: p.cfg.Name,
		Size: max(e.Spec.Size, e.GrowTo), Mode: e.Spec.Mode, FSType: e.Spec.FSType, Family: e.family(),
		Labels: req.Labels, Cluster: p.cluster, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	if r.Held, err = p.mayHold(ctx, e.record); err != nil {
		return snapshotRecord{}, err
	}
	return r, p.promiseSnapshot(ctx, r, r.Held)
}

// mayHold is the bytes that a copy of a volume may hold: as many as the volume
// does. While bytes are copied it may come to more, but not beyond its size.
func (p *pool) mayHold(ctx context.Context, r record) (int64, error) {
	if p.backend.Abilities().Sharing == backend.SharesNothing {
		return r.reserved(), nil
	}
	u, err := p.backend.Usage(ctx, r.Spec.ID, "")
	return min(r.reserved(), u.UsedBytes+r.Beside), err
}

// capture takes the snapshot and then promises what it holds. It is undone if
// that fails, unless the process is about to end or somebody gave it up.
func (p *pool) capture(ctx context.Context, s backend.Snapshotter, r snapshotRecord, progress backend.Progress) error {
	var taken backend.Snapshot
	err := p.making(func() (err error) {
		taken, err = s.Snapshot(ctx, r.Volume, r.ID, progress)
		return err
	})
	if err == nil {
		if p.backend.Abilities().Sharing == backend.SharesNothing {
			p.seen.made(snapshotKey(r.ID), taken.Held)
		}
		r.State = ready
		err = p.settle(ctx, &r, taken)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	if undo := p.destroySnapshot(ctx, r); undo != nil {
		return fmt.Errorf("%w (and what was begun could not be undone yet: %v)", err, undo)
	}
	return err
}

// settle writes the record of a snapshot that is whole, with the bytes that it
// holds; if they are more than were promised, the rest is.
func (p *pool) settle(ctx context.Context, r *snapshotRecord, taken backend.Snapshot) error {
	promised := r.Held
	r.Held = taken.Held
	if r.Held < 0 { // what it shares is charged to its volume: all of that may be shared
		e, err := p.records.get(r.Volume)
		if err == nil {
			r.Held, err = p.mayHold(ctx, e.record)
		}
		if err != nil {
			return err
		}
	}
	if r.Held <= promised {
		return p.snaps.put(*r)
	}
	return p.promiseSnapshot(ctx, *r, r.Held-promised)
}

// undoSnapshot removes a snapshot whatever its state; ErrBusy if somebody else
// works on it or copies it.
func (p *pool) undoSnapshot(ctx context.Context, id volume.ID) error {
	return p.undo(ctx, id, func(snapshotEntry) bool { return true })
}

// undoUnfinished removes a snapshot that is not ready.
func (p *pool) undoUnfinished(ctx context.Context, id volume.ID) error {
	return p.undo(ctx, id, func(e snapshotEntry) bool { return e.State != ready })
}

func (p *pool) undo(ctx context.Context, id volume.ID, when func(snapshotEntry) bool) error {
	unlock, err := p.lockSnapshot(id)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := p.snaps.get(id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err == nil && e.broken != "" {
		err = fmt.Errorf("%w (%s)", errIncomplete, e.broken)
	}
	if err == nil && when(e) {
		err = p.destroySnapshot(ctx, e.snapshotRecord)
	}
	if err != nil {
		return fmt.Errorf("delete snapshot %s: %w", id, err)
	}
	return nil
}

// destroySnapshot removes a snapshot for good: record says so, bytes go,
// record goes.
func (p *pool) destroySnapshot(ctx context.Context, r snapshotRecord) error {
	s, err := p.snapshotter()
	if err != nil {
		return err
	}
	if r.State != deleting {
		r.State = deleting
		if err := p.snaps.put(r); err != nil {
			return err
		}
	}
	if err := s.RemoveSnapshot(ctx, r.ID); err != nil {
		return err
	}
	if err := p.snaps.remove(r.ID); err != nil {
		return err
	}
	p.seen.removed(snapshotKey(r.ID))
	p.problems.clear(snapshotKey(r.ID))
	return nil
}

// recoverSnapshots is recover for snapshots. One that was being made is undone,
// for nobody was told that it is ready and whoever wants it asks again.
func (p *pool) recoverSnapshots(ctx context.Context) {
	for _, file := range p.snaps.strays {
		p.problem("file "+file, fmt.Sprintf("%s is no record; it is left alone", file), nil)
	}
	s, err := p.snapshotter()
	if err != nil {
		return
	}
	entries, err := p.snaps.all()
	if err != nil {
		p.problem("records of snapshots", "the records of snapshots cannot be read", err)
		return
	}
	found, err := s.ListSnapshots(ctx)
	if err != nil {
		p.problem("snapshots", "the snapshots cannot be listed", err)
		return
	}
	there := map[volume.ID]bool{}
	for _, f := range found {
		there[f.ID] = true
	}
	for _, e := range entries {
		key := snapshotKey(e.ID)
		switch {
		case e.broken != "":
			p.problem(key, fmt.Sprintf("%s is unavailable and is left alone: its record cannot be used (%s)", key, e.broken), nil)
		case e.State != ready:
			p.log.Info("finishing what was cut", logSnapshot, e.ID, logState, string(e.State))
			err := p.undoUnfinished(ctx, e.ID)
			if err != nil && !errors.Is(err, volume.ErrBusy) { // another node is at work on it
				p.problem(key, fmt.Sprintf("%s (%s): unfinished work failed", key, e.State), err)
			}
		case !there[e.ID]:
			p.problem(key, fmt.Sprintf("%s has a record and no data; restore the data, or delete the snapshot", key), nil)
		}
		delete(there, e.ID)
	}
	if p.cfg.Shared {
		return // another node may be about to remove or to make what is left
	}
	for _, id := range slices.Sorted(maps.Keys(there)) {
		p.problem("data of "+snapshotKey(id), fmt.Sprintf("%s has data and no record; it is left alone", snapshotKey(id)), nil)
	}
}
