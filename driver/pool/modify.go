package pool

import (
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mkfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

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
