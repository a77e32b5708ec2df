package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Create makes a volume, resumes one that was cut, or finds the one of that
// name; ErrExists if that has other properties. ErrNoCapacity says which pool
// had how much.
func (m *Manager) Create(ctx context.Context, req volume.Request) (volume.Volume, error) {
	req, err := complete(req)
	if err != nil {
		return volume.Volume{}, err
	}
	release, err := m.Hold(req.ID)
	if err != nil {
		return volume.Volume{}, err
	}
	defer release()
	v, err := m.create(ctx, req)
	if err != nil {
		return volume.Volume{}, fmt.Errorf("create volume %s: %w", req.ID, err)
	}
	return v, nil
}

// complete fills in and checks what every request has.
func complete(req volume.Request) (volume.Request, error) {
	if req.ID == "" {
		req.ID = volume.IDForName(req.Name)
	}
	_, err := volume.ParseID(string(req.ID))
	switch {
	case err != nil:
	case req.Name == "":
		err = fmt.Errorf("%w: volume %s has no name", volume.ErrInvalid, req.ID)
	case req.From.Snapshot != "" && req.From.Volume != "":
		err = fmt.Errorf("%w: volume %s is to start with a snapshot and with a volume; ask for one", volume.ErrInvalid, req.ID)
	case req.Size < 0 || req.Size == 0 && req.From == (volume.Content{}) || req.LimitBytes < 0 || req.LimitBytes > 0 && req.LimitBytes < req.Size:
		err = fmt.Errorf("%w: volume %s of %d to %d bytes", volume.ErrInvalid, req.ID, req.Size, req.LimitBytes)
	case req.Mode != volume.Filesystem && req.Mode != volume.Block:
		err = fmt.Errorf("%w: volume %s of mode %q; the modes are %s and %s", volume.ErrInvalid, req.ID, req.Mode, volume.Filesystem, volume.Block)
	case !slices.Contains([]volume.OnDelete{"", volume.Delete, volume.Scrub}, req.OnDelete):
		err = fmt.Errorf("%w: volume %s with onDelete %q; it is %s or %s", volume.ErrInvalid, req.ID, req.OnDelete, volume.Delete, volume.Scrub)
	case req.Mode == volume.Block && req.Root != (volume.Root{}):
		err = fmt.Errorf("%w: volume %s is a block device and has no root directory for parameters %s and %s; leave them out", volume.ErrInvalid, req.ID, volume.ParamMode, volume.ParamOwner)
	case req.Mode == volume.Block && req.FSType != "":
		err = fmt.Errorf("%w: volume %s is a block device and has no filesystem %q", volume.ErrInvalid, req.ID, req.FSType)
	case req.Import != "":
		err = importable(req)
	case req.Path != "":
		if _, err = volume.ParsePath(string(req.Path)); err != nil {
			err = fmt.Errorf("volume %s: %w", req.ID, err)
		}
	}
	return req, err
}

func (m *Manager) create(ctx context.Context, req volume.Request) (volume.Volume, error) {
	asked := splitNames(req.Pool)
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			if len(asked) != 1 && s.mayHold(asked) {
				// It may have the volume already, and the answer was lost.
				return volume.Volume{}, fmt.Errorf("%w; until it is back, ask for one pool by its name", err)
			}
			continue
		}
		v, found, err := m.existing(ctx, p, req)
		release()
		if found || err != nil {
			return v, err
		}
	}
	if req.From != (volume.Content{}) {
		var err error
		if req, err = m.besideSource(req); err != nil {
			return volume.Volume{}, err
		}
	}
	candidates, err := m.candidates(ctx, req)
	if err != nil {
		return volume.Volume{}, err
	}
	for _, c := range candidates {
		var v volume.Volume
		v, err = m.createIn(ctx, c.slot, req)
		if !errors.Is(err, volume.ErrNoCapacity) {
			return v, err
		}
	}
	return volume.Volume{}, err
}

// mayHold reports whether a pool that does not serve has served before, and is
// among those that a request may go to.
func (s *slot) mayHold(asked []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known != "" && (len(asked) == 0 || slices.Contains(asked, s.cfg.Name))
}

// existing looks in one pool for the volume that a request names. One that
// nobody was told of yet is resumed if it is what is asked for now, and undone
// if it is not.
func (m *Manager) existing(ctx context.Context, p *pool, req volume.Request) (volume.Volume, bool, error) {
	if w := p.jobs.find(volumeKey(req.ID)); w != nil {
		v, err := m.awaitCopy(ctx, p, w, req)
		return v, true, err
	}
	unlock, err := p.lockVolume(req.ID)
	if err != nil {
		return volume.Volume{}, false, err
	}
	defer unlock()
	e, err := p.records.get(req.ID)
	if errors.Is(err, volume.ErrNotFound) {
		return volume.Volume{}, false, nil
	}
	if err != nil {
		return volume.Volume{}, false, err
	}
	if e.broken != "" {
		return volume.Volume{}, true, fmt.Errorf("%w (%s)", errIncomplete, e.broken)
	}
	differs := m.differs(p, e.record, req)
	switch {
	case e.State == ready:
		return e.volume(p.node), true, differs
	case e.State == importing && differs == nil:
		r, err := p.importDir(ctx, e.record)
		return r.volume(p.node), true, err
	case e.State == releasing:
		return volume.Volume{}, true, fmt.Errorf("%w: it becomes the directory %s", volume.ErrBusy, e.ReleaseTo)
	case e.State == creating && differs == nil && e.From == (volume.Content{}): // a copy begins anew
		r, err := p.create(ctx, e.record, req.LimitBytes)
		return r.volume(p.node), true, err
	}
	return volume.Volume{}, false, p.destroy(ctx, e.record)
}

// differs says in what a volume is not what a request describes.
func (m *Manager) differs(p *pool, r record, req volume.Request) error {
	says := func(what string, has, asked any) error {
		return fmt.Errorf("%w: it has the %s %v, asked is %v", volume.ErrExists, what, has, asked)
	}
	pools := splitNames(req.Pool)
	switch {
	case r.Name != req.Name:
		return says("name", r.Name, req.Name)
	case r.Cluster != "" && m.opts.ClusterID != "" && r.Cluster != m.opts.ClusterID:
		return says("cluster", r.Cluster, m.opts.ClusterID)
	case r.Ephemeral != req.Ephemeral:
		return says("property ephemeral", r.Ephemeral, req.Ephemeral)
	case r.Target != req.Target:
		return says("target", r.Target, req.Target)
	case r.Spec.Size < req.Size || req.LimitBytes > 0 && r.Spec.Size > req.LimitBytes:
		return says("size", r.Spec.Size, fmt.Sprintf("%d to %d", req.Size, req.LimitBytes))
	case r.Spec.Mode != req.Mode:
		return says("mode", r.Spec.Mode, req.Mode)
	case req.FSType != "" && r.Spec.FSType != req.FSType:
		return says("filesystem", r.Spec.FSType, req.FSType)
	case r.Imported != req.Import:
		return says("origin", r.Imported, req.Import)
	case r.Path != req.Path:
		return says("path", r.Path, req.Path)
	case r.From != req.From:
		return says("content of", r.From, req.From)
	case scrubbed(r.Spec) != scrubbed(req.Spec):
		return says("way of deletion", r.Spec.OnDelete, req.OnDelete)
	case r.Spec.Thick != req.Thick:
		return says("thick provisioning", r.Spec.Thick, req.Thick)
	case !slices.Equal(r.Spec.MkfsOptions, req.MkfsOptions):
		return says("mkfs options", r.Spec.MkfsOptions, req.MkfsOptions)
	case r.Spec.Root != req.Root:
		return says("root directory", r.Spec.Root, req.Root)
	case r.State == creating && r.Spec.Attributes != req.Attributes: // later they may have been changed
		return says("attributes", r.Spec.Attributes, req.Attributes)
	case len(pools) > 0 && !slices.Contains(pools, p.cfg.Name):
		return says("pool", p.cfg.Name, req.Pool)
	case p.node != "" && len(req.Nodes) > 0 && !slices.Contains(req.Nodes, p.node):
		return says("node", p.node, strings.Join(req.Nodes, ", "))
	case !p.cfg.Shared && slices.ContainsFunc(req.AccessModes, multiNode):
		return says("access modes of one node and not", "a shared pool", req.AccessModes)
	}
	return nil
}

// createIn makes a volume in one pool.
func (m *Manager) createIn(ctx context.Context, s *slot, req volume.Request) (volume.Volume, error) {
	p, release, err := s.use()
	if err != nil {
		return volume.Volume{}, err
	}
	defer release()
	unlock, err := p.lockVolume(req.ID)
	if err != nil {
		return volume.Volume{}, err
	}
	if req.From != (volume.Content{}) {
		r, err := p.createFrom(ctx, p.newRecord(req), req.LimitBytes, unlock)
		return r.volume(p.node), err
	}
	defer unlock()
	if req.Import != "" {
		r, err := p.importNew(ctx, p.newRecord(req))
		return r.volume(p.node), err
	}
	if a := p.backend.Abilities(); req.Mode == volume.Filesystem && req.FSType == "" && len(a.FSTypes) > 0 {
		req.FSType = a.FSTypes[0]
	}
	r, err := p.create(ctx, p.newRecord(req), req.LimitBytes)
	if err != nil {
		return volume.Volume{}, err
	}
	return r.volume(p.node), nil
}
