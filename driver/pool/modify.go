package pool

import (
	"context"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mkfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Expand grows a volume to size bytes. One that has them already is returned
// as it is.
func (m *Manager) Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error) {
	release, err := m.Hold(id)
	if err != nil {
		return volume.Volume{}, fmt.Errorf("expand volume: %w", err)
	}
	defer release()
	f, err := m.findReady(id)
	if err != nil {
		return volume.Volume{}, fmt.Errorf("expand volume: %w", err)
	}
	defer f.release()
	unlock, err := f.pool.lockVolume(id)
	if err != nil {
		return volume.Volume{}, fmt.Errorf("expand volume: %w", err)
	}
	defer unlock()
	r, err := f.pool.expand(ctx, f.entry.record, size)
	if err != nil {
		return volume.Volume{}, err
	}
	return r.volume(f.pool.node), nil
}

// Modify gives a volume attributes, all of them at once: what is zero has no
// limit then. An inode limit below what the volume has takes nothing away; no
// file can be made in it until enough are gone. ErrInvalid for attributes that
// no volume can have, ErrUnsupported where the backend does not hold to any.
func (m *Manager) Modify(ctx context.Context, id volume.ID, to volume.Attributes) (volume.Volume, error) {
	v, err := m.modify(ctx, id, to)
	if err != nil {
		return volume.Volume{}, fmt.Errorf("modify volume %s: %w", id, err)
	}
	return v, nil
}

func (m *Manager) modify(ctx context.Context, id volume.ID, to volume.Attributes) (volume.Volume, error) {
	release, err := m.Hold(id)
	if err != nil {
		return volume.Volume{}, err
	}
	defer release()
	f, err := m.findReady(id)
	if err != nil {
		return volume.Volume{}, err
	}
	defer f.release()
	unlock, err := f.pool.lockVolume(id)
	if err != nil {
		return volume.Volume{}, err
	}
	defer unlock()
	if err := f.pool.servesAttributes(f.pool.backend.Abilities(), to); err != nil {
		return volume.Volume{}, err
	}
	r, err := f.pool.modify(ctx, f.entry.record, to)
	return r.volume(f.pool.node), err
}

// modify changes attributes: first the record says to what, then they hold,
// then the record has them. A change that was cut, or that the backend could
// not make, is made by the next start or the next request.
func (p *pool) modify(ctx context.Context, r record, to volume.Attributes) (record, error) {
	if r.ModifyTo == nil && r.Spec.Attributes == to {
		return r, nil
	}
	r.ModifyTo = &to
	if err := p.records.put(r); err != nil {
		return record{}, err
	}
	return p.applyModify(ctx, r)
}

// applyModify does what the record says is to change.
func (p *pool) applyModify(ctx context.Context, r record) (record, error) {
	r.Spec.Attributes, r.ModifyTo = *r.ModifyTo, nil
	if _, err := p.backend.Get(ctx, r.Spec.ID); err != nil { // never make an empty volume of a lost one
		return record{}, err
	}
	if _, err := p.ensure(ctx, r.Spec); err != nil {
		return record{}, err
	}
	if err := p.records.put(r); err != nil {
		return record{}, err
	}
	p.problems.clear(string(r.Spec.ID))
	return r, nil
}

// servesSpec checks what of a spec only some backends have.
func (p *pool) servesSpec(a backend.Abilities, s volume.Spec) error {
	if err := p.servesAttributes(a, s.Attributes); err != nil {
		return err
	}
	if len(s.MkfsOptions) == 0 {
		return nil
	}
	if s.Mode == volume.Block || len(a.FSTypes) == 0 {
		return fmt.Errorf("%w: pool %s (%s) formats no %s volume, so mkfs options %q are of no use; leave them out, or ask a pool of images for a filesystem",
			volume.ErrUnsupported, p.cfg.Name, p.kind, s.Mode, s.MkfsOptions)
	}
	fsType := s.FSType
	if fsType == "" {
		fsType = a.FSTypes[0]
	}
	if err := mkfs.Check(fsType, s.MkfsOptions); err != nil {
		return fmt.Errorf("%w: %w", volume.ErrInvalid, err)
	}
	return nil
}

// servesAttributes refuses attributes that the pool cannot hold a volume to.
func (p *pool) servesAttributes(a backend.Abilities, want volume.Attributes) error {
	if err := want.Check(); err != nil {
		return err
	}
	if want != (volume.Attributes{}) && !a.Attributes {
		return fmt.Errorf("%w: pool %s (%s) has no attributes; inodes and softLimit are those of backend directory with project quotas",
			volume.ErrUnsupported, p.cfg.Name, p.kind)
	}
	return nil
}
