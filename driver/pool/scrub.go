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

// scrub ends the deletion of a volume whose bytes are to be unreadable. That
// may take hours, and goes on when whoever asked has stopped waiting: ErrBusy
// then.
func (p *pool) scrub(ctx context.Context, r record) error {
	w := p.jobs.peek(scrubKey(r.Spec.ID))
	if w == nil {
		var err error
		if w, err = p.startScrub(r); err != nil {
			return err
		}
	}
	select {
	case <-w.done:
		p.jobs.find(scrubKey(r.Spec.ID)) // its error is told now
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("delete volume %s: %w: it is being scrubbed, which goes on; ask again", r.Spec.ID, volume.ErrBusy)
	}
}

func (p *pool) startScrub(r record) (*job, error) {
	return p.jobs.start(scrubKey(r.Spec.ID), func(ctx context.Context, _ *job) error {
		b, err := p.scrubber()
		if err == nil {
			err = b.Scrub(ctx, r.Spec.ID)
		}
		return p.removed(ctx, r, err)
	})
}

// scrubKey is what the job is called that scrubs a volume.
func scrubKey(id volume.ID) string { return "scrub " + string(id) }
