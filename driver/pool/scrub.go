package pool

import (
	"context"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

func scrubbed(s volume.Spec) bool { return s.OnDelete == volume.Scrub }

// scrubber gives what scrubs volumes in this pool; an error says why nothing
// can, and wraps ErrUnsupported.
func (p *pool) scrubber() (backend.Scrubber, error) {
	b, ok := p.backend.(backend.Scrubber)
	if !ok {
		return nil, fmt.Errorf("pool %s (%s) cannot scrub volumes (onDelete: scrub): %w", p.cfg.Name, p.kind, volume.ErrUnsupported)
	}
	if err := b.Scrubs(); err != nil {
		return nil, fmt.Errorf("pool %s (%s) cannot scrub volumes (onDelete: scrub): %w", p.cfg.Name, p.kind, err)
	}
	return b, nil
}

// scrubs refuses a volume that could not be scrubbed when it is deleted: a
// promise that cannot be kept is not given.
func (p *pool) scrubs(s volume.Spec) error {
	if !scrubbed(s) {
		return nil
	}
	_, err := p.scrubber()
	return err
}

// scrub removes a volume whose bytes are to be unreadable, which may take
// hours. The backend goes on with one that was cut.
func (p *pool) scrub(ctx context.Context, id volume.ID) error {
	b, err := p.scrubber()
	if err != nil {
		return err
	}
	return b.Scrub(ctx, id)
}
