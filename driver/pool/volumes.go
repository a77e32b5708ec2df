package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plinth-csi/plinth/driver/host/filelock"
	"github.com/plinth-csi/plinth/driver/volume"
)

// This file is what a pool does with one volume. The manager holds the
// volume's lock while it calls, and has checked the pool's identity.

// lockVolume keeps everybody else from making, changing or removing a volume,
// or copying it; mounting has a lock of its own, Manager.Hold.
func (p *pool) lockVolume(id volume.ID) (release func(), err error) {
	return p.lockKey(volumeKey(id), string(id), false)
}

// lockSnapshot is lockVolume for a snapshot.
func (p *pool) lockSnapshot(id volume.ID) (release func(), err error) {
	return p.lockKey(snapshotKey(id), snapshotKey(id), false)
}

// lockSource keeps the source of a copy as it is, together with others who
// copy it.
func (p *pool) lockSource(c volume.Content) (release func(), err error) {
	if c.Snapshot != "" {
		return p.lockKey(snapshotKey(c.Snapshot), snapshotKey(c.Snapshot), true)
	}
	return p.lockKey(volumeKey(c.Volume), string(c.Volume), true)
}

// lockKey takes a lock by its key. In a shared pool a byte of the pool's lock file
// stands for it (filelock.Key of name), locked until release, or until this
// process or its machine ends.
func (p *pool) lockKey(key, name string, share bool) (release func(), err error) {
	if !p.cfg.Shared {
		return p.held.take(key, share)
	}
	// A lock belongs to an open file: each holder opens its own.
	f, err := p.root.OpenFile(lockFile, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", key, err)
	}
	try := filelock.Try
	if share {
		try = filelock.TryShared
	}
	if err := try(f, filelock.Key(name)); err != nil {
		if errors.Is(err, filelock.ErrHeld) {
			err = fmt.Errorf("this or another node works on it: %w", volume.ErrBusy)
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", key, err), f.Close())
	}
	return func() { _ = filelock.Close(f) }, nil
}

// making lets a backend make or grow something, by do. In a shared pool no node
// opens the pool meanwhile, and would take what is half made for rubbish.
func (p *pool) making(do func() error) error {
	if p.cfg.Shared {
		f, err := p.root.OpenFile(lockFile, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := filelock.WaitShared(f, filelock.Opening); err != nil {
			return err
		}
	}
	return do()
}

// ensure makes or grows a volume.
func (p *pool) ensure(ctx context.Context, s volume.Spec) (info volume.Info, err error) {
	err = p.making(func() error {
		info, err = p.backend.Ensure(ctx, s)
		return err
	})
	return info, err
}

// create makes a volume or resumes one that was cut while it was made. limit
// is the most that it may have, in bytes; 0 is no bound.
func (p *pool) create(ctx context.Context, r record, limit int64) (record, error) {
	switch e, err := p.records.get(r.Spec.ID); {
	case errors.Is(err, volume.ErrNotFound):
		if err := p.vacant(ctx, r.Spec.ID); err != nil {
			return record{}, err
		}
		if err := p.promise(ctx, r, r.Spec.Size); err != nil {
			return record{}, err
		}
	case err != nil:
		return record{}, err
	case e.broken == "" && e.State == creating:
		r = e.record // promised already; the sizes were compared by the caller
	default:
		return record{}, fmt.Errorf("volume %s is %s: %w", r.Spec.ID, e.State, volume.ErrBusy)
	}
	info, err := p.ensure(ctx, r.Spec)
	if err != nil {
		return record{}, p.giveUp(ctx, r, err)
	}
	p.seen.made(volumeKey(r.Spec.ID), info.Allocated)
	return p.made(ctx, r, info, limit)
}

// made says in the record that a volume is ready.
func (p *pool) made(ctx context.Context, r record, info volume.Info, limit int64) (record, error) {
	r.Spec.Size = p.exact(r.Spec, info)
	if limit > 0 && r.Spec.Size > limit {
		err := fmt.Errorf("%w: pool %s makes it %d bytes, allowed are %d", volume.ErrOutOfRange, p.cfg.Name, r.Spec.Size, limit)
		return record{}, p.giveUp(ctx, r, err)
	}
	r.State = ready
	if err := p.records.put(r); err != nil {
		return record{}, err
	}
	return r, nil
}

// exact is the size of a volume that the backend has made. A consumer sees the
// size of a block device, which a backend rounds up to its sectors, and of a
// whole disk; else, in a filesystem, the limit is what was asked, and what lies
// beyond is of no use.
func (p *pool) exact(s volume.Spec, made volume.Info) int64 {
	if s.Mode == volume.Block || p.kind == BackendDevice {
		return max(s.Size, made.Size)
	}
	return s.Size
}

// vacant refuses to make a volume over data that no record explains.
func (p *pool) vacant(ctx context.Context, id volume.ID) error {
	_, err := p.backend.Get(ctx, id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: pool %s has data of that ID and no record of it; move the data away", volume.ErrExists, p.cfg.Name)
	}
	return fmt.Errorf("create volume %s: %w", id, err)
}

// giveUp undoes a volume that could not be made. One that was only
// interrupted stays as it is, to be resumed by the next request.
func (p *pool) giveUp(ctx context.Context, r record, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if err := p.destroy(ctx, r); err != nil {
		return fmt.Errorf("%w (and what was begun could not be undone yet: %v)", cause, err)
	}
	return cause
}

// destroy removes a volume for good: record says so, bytes go, record goes. If
// somebody turns out to use the volume, it is ready again: its deletion was
// asked for, and not granted. That holds for one, too, whose deletion was cut.
func (p *pool) destroy(ctx context.Context, r record) error {
	id := r.Spec.ID
	if r.State == importing || r.State == releasing {
		return p.giveBack(ctx, r)
	}
	if r.State != deleting {
		r.State = deleting
		if err := p.records.announce(r); err != nil {
			return err
		}
	}
	remove := p.backend.Remove
	if scrubbed(r.Spec) {
		remove = p.scrub
	}
	if err := remove(ctx, id); err != nil {
		err = fmt.Errorf("delete volume %s: %w", id, err)
		if _, getErr := p.backend.Get(ctx, id); getErr == nil && errors.Is(err, volume.ErrInUse) {
			r.State = ready
			err = errors.Join(err, p.records.put(r))
		}
		return err
	}
	p.seen.removed(volumeKey(id))
	if err := errors.Join(p.unlink(r), p.unlinkOrigin(r)); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}
	if err := p.records.remove(id); err != nil {
		return err
	}
	p.problems.clear(string(id))
	return nil
}

// delete is destroy for a record that may be broken.
func (p *pool) delete(ctx context.Context, e entry) error {
	if e.broken != "" {
		return fmt.Errorf("delete volume %s: %w (%s)", e.Spec.ID, errIncomplete, e.broken)
	}
	if err := p.ours(e.Cluster); err != nil {
		return fmt.Errorf("delete volume %s: %w", e.Spec.ID, err)
	}
	return p.destroy(ctx, e.record)
}

// ours refuses what another cluster made: pools outlive clusters, and what
// this one may not use it may not delete.
func (p *pool) ours(cluster string) error {
	if cluster != "" && p.cluster != "" && cluster != p.cluster {
		return fmt.Errorf("%w: cluster %s made it, and this is cluster %s", volume.ErrExists, cluster, p.cluster)
	}
	return nil
}

// expand grows a volume: first the promise is on disk, then the bytes are
// there, then the record has the new size.
func (p *pool) expand(ctx context.Context, r record, size int64) (record, error) {
	if size <= r.Spec.Size {
		return r, nil
	}
	c, err := p.backend.Capacity(ctx)
	if err != nil {
		return record{}, fmt.Errorf("expand volume %s: %w", r.Spec.ID, err)
	}
	if c.MaxVolume > 0 && size > c.MaxVolume {
		return record{}, fmt.Errorf("expand volume %s: %w: pool %s makes volumes of up to %d bytes", r.Spec.ID, volume.ErrOutOfRange, p.cfg.Name, c.MaxVolume)
	}
	if c.Whole { // it takes no bytes of the pool to grow with its disk
		r.GrowTo = size
		return p.grow(ctx, r)
	}
	if size > r.GrowTo {
		more := size - r.reserved()
		r.GrowTo = size
		if err := p.promise(ctx, r, more); err != nil {
			return record{}, err
		}
	}
	return p.grow(ctx, r)
}

// grow brings a volume to the size that its record promises. If the backend
// refuses, the promise is taken back.
func (p *pool) grow(ctx context.Context, r record) (record, error) {
	spec := r.Spec
	spec.Size = r.GrowTo
	info, err := p.ensure(ctx, spec)
	if err != nil {
		err = fmt.Errorf("expand volume %s: %w", r.Spec.ID, err)
		if ctx.Err() == nil && p.stillSmall(ctx, r) {
			r.GrowTo = 0
			err = errors.Join(err, p.records.put(r))
		}
		return record{}, err
	}
	r.Spec.Size, r.GrowTo = p.exact(spec, info), 0
	if err := p.records.put(r); err != nil {
		return record{}, err
	}
	p.problems.clear(string(r.Spec.ID))
	return r, nil
}

// stillSmall reports whether a failed growth has certainly taken no bytes.
func (p *pool) stillSmall(ctx context.Context, r record) bool {
	info, err := p.backend.Get(ctx, r.Spec.ID)
	return err == nil && info.Size > 0 && info.Size < r.GrowTo
}

// newRecord is the record of a volume that is about to be made.
func (p *pool) newRecord(req volume.Request) record {
	return record{
		State: creating, Spec: req.Spec, Name: req.Name, Pool: p.cfg.Name, AccessModes: req.AccessModes,
		Labels: req.Labels, From: req.From, Path: req.Path, Imported: req.Import, Ephemeral: req.Ephemeral, Target: req.Target, Cluster: p.cluster, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
}
