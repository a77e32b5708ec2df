package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// freezeLimit bounds how long the volumes of a group are frozen, for which
// applications that write wait. If their reflinks are not all done by then, all
// go on and there is no group.
const freezeLimit = 5 * time.Second

// member is a volume of which a group takes a snapshot.
type member struct {
	found
	freezer backend.Freezer
	snaps   backend.Snapshotter
	asked   volume.SnapshotRequest
	record  snapshotRecord
	capture backend.Capture
}

// freezer is the backend, if several volumes of the pool can be captured at one
// instant.
func (p *pool) freezer() (backend.Freezer, error) {
	const out = "; put the volumes into pools with backend: image on XFS, or take a snapshot of each alone"
	f, ok := p.backend.(backend.Freezer)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: pool %s (%s) cannot take snapshots of several volumes at one instant, for what it would have to freeze is its own filesystem%s",
			volume.ErrUnsupported, p.cfg.Name, p.kind, out)
	case p.cfg.Shared:
		return nil, fmt.Errorf("%w: pool %s is shared, and what is mounted on other nodes cannot be frozen from here%s", volume.ErrUnsupported, p.cfg.Name, out)
	}
	if err := f.Freezes(); err != nil {
		return nil, fmt.Errorf("pool %s (%s) cannot take snapshots of several volumes at one instant: %w%s", p.cfg.Name, p.kind, err, out)
	}
	return f, nil
}

// members finds the volumes of a group, in their order, and keeps their pools
// open until release.
func (m *Manager) members(req volume.GroupRequest) (_ []*member, release func(), err error) {
	var all []*member
	letGo := func() {
		for _, one := range all {
			one.release()
		}
	}
	defer func() {
		if err != nil {
			letGo()
		}
	}()
	for _, id := range req.Volumes {
		f, err := m.findReady(id)
		if err != nil {
			return nil, nil, err
		}
		one := &member{found: f}
		all = append(all, one)
		one.asked.Volume, one.asked.Labels = id, req.Labels
		one.asked.ID, one.asked.Name = volume.MemberID(req.Name, id)
		if one.freezer, err = f.pool.freezer(); err == nil {
			one.snaps, err = f.pool.snapshotter()
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return all, letGo, nil
}

// keepMembers keeps the volumes of a group as they are, and everybody else from
// its snapshots. unlock may be called whatever the error.
func (m *Manager) keepMembers(members []*member) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, one := range slices.Backward(held) {
			one()
		}
	}
	for _, one := range members {
		mine, err := m.locks.try(snapshotKey(one.asked.ID))
		if err != nil {
			return unlock, err
		}
		held = append(held, mine)
		if mine, err = one.pool.lockSnapshot(one.asked.ID); err != nil {
			return unlock, err
		}
		held = append(held, mine)
		src, err := one.pool.keepSource(volume.Content{Volume: one.asked.Volume})
		if err != nil {
			return unlock, err
		}
		held = append(held, src.release)
		if e, err := one.pool.snaps.get(one.asked.ID); !errors.Is(err, volume.ErrNotFound) {
			return unlock, errors.Join(fmt.Errorf("%w: snapshot %s, named %q", volume.ErrExists, one.asked.ID, e.Name), err)
		}
	}
	return unlock, nil
}

// takeGroup promises the bytes of all snapshots, takes them, and says in their
// records, and then in the group's, that they are there. Whoever calls undoes
// what it began if it fails.
func (m *Manager) takeGroup(ctx context.Context, r *groupRecord, members []*member) (err error) {
	for _, one := range members {
		if one.record, err = one.pool.newSnapshot(ctx, one.snaps, one.asked, r.ID); err != nil {
			return err
		}
	}
	defer func() {
		for _, one := range members {
			if one.capture != nil {
				err = errors.Join(err, one.capture.Close())
			}
		}
	}()
	for _, one := range members {
		if one.capture, err = one.freezer.Prepare(ctx, one.asked.Volume, one.asked.ID); err != nil {
			return fmt.Errorf("pool %s (%s): %w", one.pool.cfg.Name, one.pool.kind, err)
		}
	}
	r.CreatedAt = time.Now().UTC().Truncate(time.Second)
	began := time.Now()
	err = atOneInstant(members, m.opts.frozen)
	m.opts.Log.Info("volumes of a group were frozen", logGroup, r.ID, logFrozen, time.Since(began))
	if err != nil {
		return err
	}
	for _, one := range members {
		taken, err := one.capture.Finish(ctx)
		if err != nil {
			return err
		}
		p := one.pool
		if p.backend.Abilities().Sharing == backend.SharesNothing {
			p.seen.made(snapshotKey(one.record.ID), taken.Held)
		}
		one.record.State, one.record.CreatedAt = ready, r.CreatedAt
		if err := p.settle(ctx, &one.record, taken); err != nil {
			return err
		}
	}
	made := *r
	made.State = ready
	if err := members[0].pool.groups.put(made); err != nil {
		return err
	}
	*r = made
	return nil
}

// atOneInstant cuts all while all are frozen. They are thawed whatever happens,
// and at the latest when the limit is over.
func atOneInstant(members []*member, limit time.Duration) error {
	thaw := func() error { return together(members, backend.Capture.Thaw) }
	watchdog := time.AfterFunc(limit, func() { _ = thaw() }) // what it says is said below
	err := together(members, backend.Capture.Freeze)
	if err == nil {
		err = together(members, backend.Capture.Cut)
	}
	late := error(nil)
	if !watchdog.Stop() {
		late = fmt.Errorf("%w: %d volumes could not be frozen and cut within %v, so they were let go on and nothing was taken; ask again when less is written, or for fewer volumes",
			volume.ErrBusy, len(members), limit)
	}
	return errors.Join(late, err, thaw())
}

// together does the same to all members at the same time.
func together(members []*member, do func(backend.Capture) error) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, one := range members {
		wg.Go(func() {
			if err := do(one.capture); err != nil {
				errs[i] = fmt.Errorf("volume %s: %w", one.asked.Volume, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
