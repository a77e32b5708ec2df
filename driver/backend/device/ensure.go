package device

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Ensure gives a volume the smallest free disk that has its size. It grows if
// its disk has grown, and is refused else. An empty fsType is ext4.
func (b *Device) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	if err := b.ensure(ctx, s); err != nil {
		return volume.Info{}, fmt.Errorf("ensure volume %s: %w", s.ID, err)
	}
	return b.Get(ctx, s.ID)
}

func (b *Device) ensure(ctx context.Context, s volume.Spec) error {
	if err := layout.Check(s.ID); err != nil {
		return err
	}
	holds, least, err := wanted(s)
	if err != nil {
		return err
	}
	if s.Size <= 0 {
		return fmt.Errorf("%w: %d bytes", volume.ErrOutOfRange, s.Size)
	}
	c, err := b.host.Read(b.kind.Path(s.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return b.make(ctx, s, holds, least)
	}
	switch {
	case err != nil:
		return err
	case c.Holds != holds && (s.Mode == volume.Block || s.FSType != "" || c.Holds == block):
		return fmt.Errorf("%w: it holds %s, %s was asked", volume.ErrExists, c.Holds, holds)
	case s.Size < c.Asked:
		return fmt.Errorf("%w: %d bytes asked, it was made for %d and volumes never shrink", volume.ErrOutOfRange, s.Size, c.Asked)
	case s.Size == c.Asked:
		return nil
	}
	return b.grow(s, c)
}

// grow takes note of what a disk has become.
func (b *Device) grow(s volume.Spec, c claim) error {
	if s.Size > c.Size {
		d, err := b.find(c)
		if err != nil {
			return err
		}
		if d.Size < s.Size {
			return fmt.Errorf("%w: it is the whole disk %s, which has %d bytes; it grows only when its disk does, so for %d bytes make a volume on a larger disk and copy",
				volume.ErrOutOfRange, d.Path, d.Size, s.Size)
		}
		c.Size = d.Size
	}
	c.Asked = s.Size
	return b.host.Write(b.kind.Path(s.ID), c)
}

// wanted is what a spec asks a disk to hold, and the least size for it.
func wanted(s volume.Spec) (content, int64, error) {
	holds, least, err := contentOf(s)
	if err == nil {
		err = layout.CheckFormat(s, string(holds))
	}
	return holds, least, err
}

func contentOf(s volume.Spec) (content, int64, error) {
	switch {
	case s.Mode == volume.Block && s.FSType == "":
		return block, minDisk, nil
	case s.Mode == volume.Filesystem && slices.Contains([]string{"", "ext4"}, s.FSType):
		return "ext4", minExt4, nil
	case s.Mode == volume.Filesystem && s.FSType == "xfs":
		return "xfs", minXFS, nil
	}
	return "", 0, fmt.Errorf("%w: mode %q with fsType %q; Filesystem with ext4 or xfs, or Block without", volume.ErrUnsupported, s.Mode, s.FSType)
}

// make claims a disk, formats it, and makes it a volume.
func (b *Device) make(ctx context.Context, s volume.Spec, holds content, least int64) error {
	if err := b.undo(ctx, s.ID); err != nil {
		return err
	}
	tmp := b.kind.TmpPath(s.ID)
	d, c, err := b.take(ctx, tmp, claim{Version: claimVersion, Asked: s.Size, Holds: holds}, max(s.Size, least))
	if err != nil {
		return err
	}
	if holds != block {
		if err := b.host.Format(ctx, d, c, s); err != nil {
			return err
		}
	}
	return b.host.Rename(tmp, b.kind.Path(s.ID))
}

// take claims the smallest free disk of at least that many bytes. The claim is
// written before the disk is touched.
func (b *Device) take(ctx context.Context, tmp string, c claim, size int64) (device.Disk, claim, error) {
	b.choosing.Lock()
	defer b.choosing.Unlock()
	free, err := b.free(ctx)
	if err != nil {
		return device.Disk{}, c, err
	}
	for _, d := range free {
		if d.Size < size {
			continue
		}
		c.Disk, c.Size, c.Mark = d.Identity, d.Size, rand.Text()
		if c.Holds != block {
			c.UUID = newUUID()
		}
		if err := b.host.Write(tmp, c); err != nil {
			return d, c, err
		}
		err := b.host.Take(ctx, d, c)
		if errors.Is(err, errTaken) {
			b.log.Info("a disk was taken by somebody else", "disk", d.Path, "error", err.Error())
			if err := b.host.Drop(tmp); err != nil {
				return d, c, err
			}
			continue
		}
		if err == nil {
			c.Taken = true
			err = b.host.Write(tmp, c)
		}
		return d, c, err
	}
	return device.Disk{}, c, tooSmall(free, size)
}

func tooSmall(free []device.Disk, size int64) error {
	if len(free) == 0 {
		return fmt.Errorf("%w: no disk is free", volume.ErrNoCapacity)
	}
	return fmt.Errorf("%w: %d bytes asked, the largest of %d free disks has %d", volume.ErrNoCapacity, size, len(free), free[len(free)-1].Size)
}

// free lists the free disks, the smallest first.
func (b *Device) free(ctx context.Context) ([]device.Disk, error) {
	_, all, err := b.claims()
	if err != nil {
		return nil, err
	}
	claimed := map[string]bool{}
	for _, c := range all {
		claimed[c.Disk] = true
	}
	free, problems, err := b.host.Offered(ctx, claimed)
	if err != nil {
		return nil, err
	}
	b.seen.Lock()
	b.seen.problems = problems
	b.seen.Unlock()
	slices.SortFunc(free, func(x, y device.Disk) int {
		return cmp.Or(cmp.Compare(x.Size, y.Size), cmp.Compare(x.Identity, y.Identity))
	})
	return free, nil
}

// undo frees a disk that a cut left half made. If anything is found on it that
// does not come from making the volume, the disk is left as it is and only the
// claim goes.
func (b *Device) undo(ctx context.Context, id volume.ID) error {
	tmp := b.kind.TmpPath(id)
	c, err := b.host.Read(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, volume.ErrInvalid) {
		return b.host.Drop(tmp) // it names no disk
	}
	if err != nil {
		return err
	}
	d, err := b.find(c)
	if err != nil {
		return fmt.Errorf("undo what was begun: %w", err)
	}
	ours, err := b.host.Ours(ctx, d, c)
	if err != nil {
		return fmt.Errorf("undo what was begun: %w", err)
	}
	if ours {
		if err := b.host.Wipe(ctx, d); err != nil {
			return fmt.Errorf("undo what was begun: %w", err)
		}
	}
	return b.host.Drop(tmp)
}

// newUUID makes a UUID of random bits (RFC 9562, version 4).
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
