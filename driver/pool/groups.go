package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// foundGroup is a group in the pool of its record.
type foundGroup = hit[groupEntry]

func (m *Manager) findGroup(id volume.ID) (foundGroup, error) {
	f, err := seek(m, groupKey(id), func(p *pool) (groupEntry, error) { return p.groups.get(id) })
	if err == nil && f.entry.broken != "" {
		f.release()
		err = fmt.Errorf("%s: %w (%s)", groupKey(id), errIncomplete, f.entry.broken)
	}
	return f, err
}

// CanGroup reports whether a pool that serves can take snapshots of several
// volumes at one instant.
func (m *Manager) CanGroup() bool {
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			continue
		}
		_, err = p.freezer()
		release()
		if err == nil {
			return true
		}
	}
	return false
}

// CreateGroup takes snapshots of several volumes at one instant, in whatever
// pools of this node they are: a write that began after another had ended is in
// no snapshot without that one (CSI 1.13, CreateVolumeGroupSnapshot: write-order
// consistency). It finds the group of that name; ErrExists if that is of other
// volumes. All are taken or none is. ErrUnsupported where a pool has no such
// thing, ErrInUse for a volume whose use cannot be held still, ErrBusy if that
// would take longer than applications can be made to wait.
func (m *Manager) CreateGroup(ctx context.Context, req volume.GroupRequest) (volume.Group, error) {
	if req.ID == "" {
		req.ID = volume.IDForName(req.Name)
	}
	if err := checkGroupRequest(req); err != nil {
		return volume.Group{}, err
	}
	req.Volumes = slices.Sorted(slices.Values(req.Volumes))
	release, err := m.locks.try(groupKey(req.ID))
	if err != nil {
		return volume.Group{}, err
	}
	defer release()
	g, err := m.createGroup(ctx, req)
	if err != nil {
		return volume.Group{}, fmt.Errorf("create group %s: %w", req.ID, err)
	}
	return g, nil
}

func checkGroupRequest(req volume.GroupRequest) error {
	if req.Name == "" || len(req.Volumes) == 0 {
		return fmt.Errorf("%w: group %.63q has no name or no volumes", volume.ErrInvalid, req.ID)
	}
	seen := map[volume.ID]bool{}
	for _, id := range append([]volume.ID{req.ID}, req.Volumes...) {
		if _, err := volume.ParseID(string(id)); err != nil {
			return err
		}
	}
	for _, id := range req.Volumes {
		if seen[id] {
			return fmt.Errorf("%w: volume %s is in group %s twice", volume.ErrInvalid, id, req.ID)
		}
		seen[id] = true
	}
	return nil
}

func (m *Manager) createGroup(ctx context.Context, req volume.GroupRequest) (volume.Group, error) {
	f, err := m.findGroup(req.ID)
	switch {
	case err == nil:
		g, ok, err := m.existingGroup(ctx, f, req)
		f.release()
		if ok || err != nil {
			return g, err
		}
	case f.pool != nil: // it is there and cannot be read
		return volume.Group{}, err
	}
	// One of that name in a pool that is away would be of other volumes: a
	// group is in the pool of the first of them, which has to serve now.
	members, release, err := m.members(req)
	if err != nil {
		return volume.Group{}, err
	}
	defer release()
	p := members[0].pool
	r := groupRecord{
		State: creating, ID: req.ID, Name: req.Name, Labels: req.Labels,
		Cluster: p.cluster, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	for _, one := range members {
		r.Members = append(r.Members, memberRecord{one.entry.Spec.ID, one.asked.ID})
	}
	unlock, err := m.keepMembers(members)
	if err == nil {
		err = p.groups.put(r)
	}
	if err != nil {
		unlock()
		return volume.Group{}, err
	}
	err = m.takeGroup(ctx, &r, members)
	unlock()
	if err == nil {
		return m.group(ctx, r)
	}
	if undo := m.dissolve(context.WithoutCancel(ctx), p, r); undo != nil {
		err = fmt.Errorf("%w (and what was begun could not be undone yet: %v)", err, undo)
	}
	return volume.Group{}, err
}

// existingGroup answers with a group that is there. One that a cut or a fault
// left is undone; ok is false then.
func (m *Manager) existingGroup(ctx context.Context, f foundGroup, req volume.GroupRequest) (_ volume.Group, ok bool, err error) {
	r := f.entry.groupRecord
	switch {
	case r.State != ready:
		return volume.Group{}, false, m.dissolve(ctx, f.pool, r)
	case r.Name != req.Name:
		err = fmt.Errorf("%w: it has the name %s, asked is %s", volume.ErrExists, r.Name, req.Name)
	case !slices.Equal(r.volumes(), req.Volumes):
		err = fmt.Errorf("%w: it is of the volumes %q, asked is %q", volume.ErrExists, r.volumes(), req.Volumes)
	}
	if err != nil {
		return volume.Group{}, false, err
	}
	g, err := m.group(ctx, r)
	return g, err == nil, err
}

// GetGroup returns a group; ErrNotFound without a record, and for one that is
// being made or deleted. One of which a snapshot is missing is not Ready.
func (m *Manager) GetGroup(ctx context.Context, id volume.ID) (volume.Group, error) {
	f, err := m.findGroup(id)
	if err != nil {
		return volume.Group{}, err
	}
	defer f.release()
	if f.entry.State != ready {
		return volume.Group{}, fmt.Errorf("group %s is %s: %w", id, f.entry.State, volume.ErrNotFound)
	}
	return m.group(ctx, f.entry.groupRecord)
}

func (m *Manager) group(ctx context.Context, r groupRecord) (volume.Group, error) {
	g := volume.Group{ID: r.ID, Name: r.Name, CreatedAt: r.CreatedAt, Ready: true}
	for _, one := range r.Members {
		s, err := m.GetSnapshot(ctx, one.Snapshot)
		switch {
		case errors.Is(err, volume.ErrNotFound):
			g.Ready = false
			continue
		case err != nil:
			return volume.Group{}, fmt.Errorf("group %s: %w", r.ID, err)
		}
		g.Snapshots = append(g.Snapshots, s)
		g.Ready = g.Ready && s.Ready
	}
	return g, nil
}

// DeleteGroup removes a group and its snapshots, and returns once the bytes
// that only they held are free. One that is not there is no error, but if a
// pool does not serve it may be in that one and the error is
// ErrPoolUnavailable. ErrBusy, and nothing is removed, while any of the
// snapshots is being copied.
func (m *Manager) DeleteGroup(ctx context.Context, id volume.ID) error {
	release, err := m.locks.try(groupKey(id))
	if err != nil {
		return fmt.Errorf("delete group: %w", err)
	}
	defer release()
	f, err := m.findGroup(id)
	switch {
	case errors.Is(err, volume.ErrNotFound):
		// The pool of its record may be gone for good, and not all of the others.
		var r groupRecord
		if r, err = m.remains(id); err == nil && len(r.Members) > 0 {
			err = m.dissolve(ctx, nil, r)
		}
	case err == nil:
		defer f.release()
		err = m.dissolve(ctx, f.pool, f.entry.groupRecord)
	}
	if err != nil {
		return fmt.Errorf("delete group %s: %w", id, err)
	}
	return nil
}
