package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// foundSnapshot is a snapshot in its pool.
type foundSnapshot = hit[snapshotEntry]

func (m *Manager) findSnapshot(id volume.ID) (foundSnapshot, error) {
	f, err := seek(m, snapshotKey(id), func(p *pool) (snapshotEntry, error) { return p.snaps.get(id) })
	if err == nil && f.entry.broken != "" {
		f.release()
		err = fmt.Errorf("%s: %w (%s)", snapshotKey(id), errIncomplete, f.entry.broken)
	}
	return f, err
}

// CreateSnapshot takes a snapshot of a volume, or finds the one of that name;
// ErrExists if that is of another volume. Where its bytes have to be copied,
// that goes on in the background: it is not Ready until they are, and whoever
// asks again, or asks GetSnapshot, learns how far it is. ErrNoCapacity if the
// pool cannot hold what the volume holds a second time.
func (m *Manager) CreateSnapshot(ctx context.Context, req volume.SnapshotRequest) (volume.Snapshot, error) {
	if req.ID == "" {
		req.ID = volume.IDForName(req.Name)
	}
	if err := checkSnapshotRequest(req); err != nil {
		return volume.Snapshot{}, err
	}
	release, err := m.locks.try(snapshotKey(req.ID))
	if err != nil {
		return volume.Snapshot{}, err
	}
	defer release()
	s, err := m.createSnapshot(ctx, req)
	if err != nil {
		return volume.Snapshot{}, fmt.Errorf("create snapshot %s: %w", req.ID, err)
	}
	return s, nil
}

func checkSnapshotRequest(req volume.SnapshotRequest) error {
	if req.Name == "" {
		return fmt.Errorf("%w: snapshot %.63q has no name", volume.ErrInvalid, req.ID)
	}
	for _, id := range []volume.ID{req.ID, req.Volume} {
		if _, err := volume.ParseID(string(id)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) createSnapshot(ctx context.Context, req volume.SnapshotRequest) (volume.Snapshot, error) {
	f, err := m.findSnapshot(req.ID)
	switch {
	case err == nil:
		s, ok, err := m.existingSnapshot(ctx, f, req)
		f.release()
		if ok || err != nil {
			return s, err
		}
	case f.pool != nil: // it is there and cannot be read
		return volume.Snapshot{}, err
	}
	// One of that name in a pool that is away would be of another volume: a
	// snapshot is in its volume's pool, which has to serve now.
	src, err := m.findReady(req.Volume)
	if err != nil {
		return volume.Snapshot{}, err
	}
	defer src.release()
	w, err := src.pool.takeSnapshot(ctx, req)
	if err != nil {
		return volume.Snapshot{}, err
	}
	return m.awaitSnapshot(ctx, src.pool, req.ID, w)
}

// existingSnapshot answers with a snapshot that is there or being made. One
// that a cut or a fault left is undone; ok is false then.
func (m *Manager) existingSnapshot(ctx context.Context, f foundSnapshot, req volume.SnapshotRequest) (_ volume.Snapshot, ok bool, err error) {
	e := f.entry
	switch {
	case e.State == deleting:
		return volume.Snapshot{}, false, f.pool.undoSnapshot(ctx, req.ID)
	case e.Group != "":
		err = fmt.Errorf("%w: it belongs to group %s", volume.ErrExists, e.Group)
	case e.Name != req.Name:
		err = fmt.Errorf("%w: it has the name %s, asked is %s", volume.ErrExists, e.Name, req.Name)
	case e.Volume != req.Volume:
		err = fmt.Errorf("%w: it is of volume %s, asked is %s", volume.ErrExists, e.Volume, req.Volume)
	case e.State == ready:
		return e.snapshot(f.pool.node, nil), true, nil
	}
	if err != nil {
		return volume.Snapshot{}, false, err
	}
	if w := f.pool.jobs.find(snapshotKey(req.ID)); w != nil {
		s, err := m.awaitSnapshot(ctx, f.pool, req.ID, w)
		return s, true, err
	}
	if err := f.pool.undoUnfinished(ctx, req.ID); err != nil {
		return volume.Snapshot{}, false, err
	}
	e, err = f.pool.snaps.get(req.ID)
	if errors.Is(err, volume.ErrNotFound) {
		return volume.Snapshot{}, false, nil
	}
	return e.snapshot(f.pool.node, nil), err == nil, err // it has just become whole
}

// awaitSnapshot waits for a snapshot that is being made: until it is whole, or
// for a while once it is known to be copied.
func (m *Manager) awaitSnapshot(ctx context.Context, p *pool, id volume.ID, w *job) (volume.Snapshot, error) {
	var enough <-chan time.Time
	began := w.began
	for waiting := true; waiting; {
		select {
		case <-w.done:
			p.jobs.find(snapshotKey(id)) // its error is told now
			if w.err != nil {
				return volume.Snapshot{}, w.err
			}
			waiting = false
		case <-began:
			began, enough = nil, time.After(m.opts.patience)
		case <-enough:
			waiting = false
		case <-ctx.Done():
			return volume.Snapshot{}, fmt.Errorf("%w (it goes on): %w", volume.ErrBusy, ctx.Err())
		}
	}
	e, err := p.snaps.get(id)
	if err != nil && w.ended() && w.err != nil { // it has failed just now
		p.jobs.find(snapshotKey(id))
		return volume.Snapshot{}, w.err
	}
	if err != nil {
		return volume.Snapshot{}, err
	}
	return e.snapshot(p.node, w), nil
}

// GetSnapshot returns a snapshot that is there or being made; ErrNotFound
// without a record, and for one that a cut left.
func (m *Manager) GetSnapshot(_ context.Context, id volume.ID) (volume.Snapshot, error) {
	f, err := m.findSnapshot(id)
	if err != nil {
		return volume.Snapshot{}, err
	}
	defer f.release()
	s, ok := f.pool.shownSnapshot(f.entry)
	if !ok {
		return volume.Snapshot{}, fmt.Errorf("snapshot %s is %s: %w", id, f.entry.State, volume.ErrNotFound)
	}
	return s, nil
}

// shownSnapshot is a snapshot as others see it, if they may.
func (p *pool) shownSnapshot(e snapshotEntry) (volume.Snapshot, bool) {
	if e.broken != "" || e.State == deleting {
		return volume.Snapshot{}, false
	}
	w := p.jobs.peek(snapshotKey(e.ID))
	return e.snapshot(p.node, w), e.State == ready || w != nil
}

// ListSnapshots returns the snapshots of all pools that serve, sorted by ID.
func (m *Manager) ListSnapshots(context.Context) ([]volume.Snapshot, error) {
	var out []volume.Snapshot
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			continue // its status says why
		}
		entries, err := p.snaps.all()
		for _, e := range entries {
			if s, ok := p.shownSnapshot(e); ok {
				out = append(out, s)
			}
		}
		release()
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", s.cfg.Name, err)
		}
	}
	slices.SortFunc(out, func(a, b volume.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// DeleteSnapshot removes a snapshot and returns once the bytes that only it
// held are free; one that is still being made is given up. One that is not
// there is no error, but if a pool does not serve it may be in that one and the
// error is ErrPoolUnavailable. ErrInvalid for one of a group: see DeleteGroup
// (CSI 1.13, DeleteSnapshot: INVALID_ARGUMENT).
func (m *Manager) DeleteSnapshot(ctx context.Context, id volume.ID) error {
	release, err := m.locks.try(snapshotKey(id))
	if err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	defer release()
	f, err := m.findSnapshot(id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	defer f.release()
	if f.entry.Group != "" {
		return fmt.Errorf("delete snapshot %s: %w: it belongs to group %s; delete the group", id, volume.ErrInvalid, f.entry.Group)
	}
	if err := f.pool.ours(f.entry.Cluster); err != nil {
		return fmt.Errorf("delete snapshot %s: %w", id, err)
	}
	f.pool.jobs.cancel(snapshotKey(id))
	return f.pool.undoSnapshot(ctx, id)
}
