package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/plinth-csi/plinth/driver/volume"
)

// dissolve removes a group for good, whatever its state: its record says so,
// the snapshots go, the record goes. The record is in p; nil if there is none.
// The caller has the group's lock. Nothing is removed if a snapshot is worked
// on (ErrBusy), or may be in a pool that does not serve.
func (m *Manager) dissolve(ctx context.Context, p *pool, r groupRecord) error {
	snaps, release, err := m.holdSnapshots(r)
	defer release()
	if err != nil {
		return err
	}
	if p != nil && r.State != deleting {
		r.State = deleting
		if err := p.groups.put(r); err != nil {
			return err
		}
	}
	for _, f := range snaps {
		if err := f.pool.destroySnapshot(ctx, f.entry.snapshotRecord); err != nil {
			return err
		}
	}
	if p == nil {
		return nil
	}
	if err := p.groups.remove(r.ID); err != nil {
		return err
	}
	p.problems.clear(groupKey(r.ID))
	return nil
}

// holdSnapshots finds those snapshots of a group that are there, and keeps
// everybody else from them until release.
func (m *Manager) holdSnapshots(r groupRecord) (_ []foundSnapshot, release func(), err error) {
	var held []func()
	release = func() {
		for _, one := range slices.Backward(held) {
			one()
		}
	}
	var out []foundSnapshot
	for _, one := range r.Members {
		mine, err := m.locks.try(snapshotKey(one.Snapshot))
		if err != nil {
			return nil, release, err
		}
		held = append(held, mine)
		f, err := m.findSnapshot(one.Snapshot)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, release, err
		}
		held = append(held, f.release)
		if f.entry.Group != r.ID {
			continue // somebody else's of that ID
		}
		unlock, err := f.pool.lockSnapshot(one.Snapshot)
		if err != nil {
			return nil, release, err
		}
		held = append(held, unlock)
		out = append(out, f)
	}
	return out, release, nil
}

// remains is a group without a record, as its snapshots tell of it.
func (m *Manager) remains(id volume.ID) (groupRecord, error) {
	r := groupRecord{ID: id, State: deleting}
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			return r, err
		}
		entries, err := p.snaps.all()
		release()
		if err != nil {
			return r, fmt.Errorf("pool %s: %w", s.cfg.Name, err)
		}
		for _, e := range entries {
			if e.Group == id {
				r.Members = append(r.Members, memberRecord{e.Volume, e.ID})
			}
		}
	}
	return r, nil
}

// checkGroups shows what is wrong with the records of groups.
func (p *pool) checkGroups() {
	for _, file := range p.groups.strays {
		p.problem("file "+file, fmt.Sprintf("%s is no record; it is left alone", file), nil)
	}
	entries, err := p.groups.all()
	if err != nil {
		p.problem("records of groups", "the records of groups cannot be read", err)
	}
	for _, e := range entries {
		if e.broken != "" {
			p.problem(groupKey(e.ID), fmt.Sprintf("%s is unavailable and is left alone: its record cannot be used (%s)", groupKey(e.ID), e.broken), nil)
		}
	}
}

// recoverGroups removes the groups that a cut left half made or half deleted:
// nobody was told that they are there. Their snapshots may be in several pools;
// until all of those serve such a group is kept and shown.
func (m *Manager) recoverGroups(ctx context.Context) {
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			continue
		}
		entries, _ := p.groups.all() // an error is shown by checkGroups
		for _, e := range entries {
			if e.broken == "" && e.State != ready {
				m.recoverGroup(ctx, p, e.ID)
			}
		}
		release()
	}
}

func (m *Manager) recoverGroup(ctx context.Context, p *pool, id volume.ID) {
	unlock, err := m.locks.try(groupKey(id))
	if err != nil {
		return // it is being worked on now
	}
	defer unlock()
	e, err := p.groups.get(id)
	if err != nil || e.broken != "" || e.State == ready {
		return // it was until just now
	}
	p.log.Info("finishing what was cut", logGroup, id, logState, string(e.State))
	if err := m.dissolve(ctx, p, e.groupRecord); err != nil {
		p.problem(groupKey(id), fmt.Sprintf("%s (%s): unfinished work failed", groupKey(id), e.State), err)
	}
}
