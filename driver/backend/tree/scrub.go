package tree

import (
	"context"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

var _ backend.Scrubber = (*Tree)(nil)

// Scrubs implements backend.Scrubber: what is freed can be made unreadable
// where the device below discards.
func (b *Tree) Scrubs() error { return layout.Scrubs(b.files) }

// Scrub is Remove and then a trim of the pool's filesystem. What a snapshot or
// a clone shares with the volume is theirs, and stays.
func (b *Tree) Scrub(ctx context.Context, id volume.ID) error {
	if err := b.Remove(ctx, id); err != nil {
		return err
	}
	if err := b.files.Trim(); err != nil {
		return fmt.Errorf("scrub volume %s: %w", id, err)
	}
	return nil
}
