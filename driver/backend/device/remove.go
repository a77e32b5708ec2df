package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Remove takes a volume's disk back: what it is known by is wiped, its blocks
// are discarded where it can, and it is free. ErrInUse while it is attached.
func (b *Device) Remove(ctx context.Context, id volume.ID) error {
	if err := b.remove(ctx, id, false); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

// Scrubs implements backend.Scrubber: every disk can be overwritten.
func (b *Device) Scrubs() error { return nil }

// Scrub is Remove after the whole disk was made to read as zeros. A disk that
// erases securely does that first. It goes on where a cut, or the end of ctx,
// left it.
func (b *Device) Scrub(ctx context.Context, id volume.ID) error {
	if err := b.remove(ctx, id, true); err != nil {
		return fmt.Errorf("scrub volume %s: %w", id, err)
	}
	return nil
}

func (b *Device) remove(ctx context.Context, id volume.ID, scrub bool) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	if err := b.undo(ctx, id); err != nil {
		return err
	}
	// What an earlier call moved there and did not get to free.
	if err := b.empty(ctx, id); err != nil {
		return err
	}
	c, err := b.host.Read(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.unused(c); err != nil {
		return err
	}
	if c.Scrub != scrub {
		c.Scrub = scrub
		if err := b.host.Write(b.kind.Path(id), c); err != nil {
			return err
		}
	}
	if err := b.host.Rename(b.kind.Path(id), b.kind.TrashPath(id)); err != nil {
		return err
	}
	return b.empty(ctx, id)
}

// unused answers ErrInUse while a volume is attached, or its disk is mounted.
func (b *Device) unused(c claim) error {
	boot, err := b.host.Boot()
	if err != nil {
		return err
	}
	if c.Attached == boot {
		return fmt.Errorf("%w: attached", volume.ErrInUse)
	}
	d, err := b.find(c)
	if err != nil {
		return err
	}
	return b.host.Idle(d)
}

// empty wipes the disk of a claim in the trash; the claim goes last.
func (b *Device) empty(ctx context.Context, id volume.ID) error {
	trash := b.kind.TrashPath(id)
	c, err := b.host.Read(trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, volume.ErrInvalid) {
		return b.host.Drop(trash) // it names no disk
	}
	if err != nil {
		return err
	}
	d, err := b.find(c)
	if err != nil {
		return err
	}
	if c.Scrub && c.Scrubbed < d.Size {
		err := b.host.Zero(ctx, d, c.Scrubbed, func(to int64) error {
			c.Scrubbed = to
			b.log.Info("scrubbing a disk", "volume", id, "disk", d.Path, "bytes", to, "of", d.Size)
			return b.host.Write(trash, c)
		})
		if err != nil {
			return err
		}
	}
	if err := b.host.Wipe(ctx, d); err != nil {
		return err
	}
	return b.host.Drop(trash)
}
