// Package image is the backend that keeps each volume as a file on a loop
// device: volumes/ID.img. It runs on any filesystem with sparse files, makes
// both filesystem and raw Block volumes, and the file's size is the limit.
//
// A filesystem is made in the temporary file, before the rename that makes it
// a volume, so no volume is ever formatted, nor is a file that holds anything
// (package mkfs). What an image holds (a filesystem
// or a consumer's blocks) is written on its inode as the attribute
// trusted.plinth.volume.
//
// Sizes are rounded up to a multiple of 4096 bytes, the largest sector size of
// a disk below; Info.Size tells the result, so a multiple of 4096 is kept to
// the byte.
//
// A thin image holds only what was written, and gives back what its filesystem
// discards. When the pool itself has no bytes left, a write into a thin image
// fails below its filesystem: fsync(2) in the consumer reports it, what was
// written and synced before stays, and an ext4 may go read-only. A pool with
// overcommit 1 keeps that from happening unless strangers fill it; a thick
// image cannot be hit, unless snapshots of it share its bytes: a write then
// needs new ones.
//
// A snapshot is a file, snapshots/ID.img. On a pool with reflinks (XFS, btrfs)
// it shares the volume's bytes and is taken at one instant of a volume in use:
// its filesystem is frozen for the time of the reflink and no longer, a Block
// volume is as a power cut would leave it. Where there are no reflinks (ext4)
// the bytes are copied, and only of a volume that is not attached, since a
// frozen filesystem would have to wait for all of them: ErrInUse otherwise.
// What is restored or cloned gets a UUID of its own before it is a volume.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Sizes in bytes.
const (
	granularity = 4096
	minExt4     = 8 << 20   // below it there is no room for a journal
	minXFS      = 300 << 20 // mkfs.xfs(8) refuses less
	maxOnExt4   = 16<<40 - 4096
)

// Options configure an image backend.
type Options struct {
	Dir    string     // the pool's path
	Runner run.Runner // runs mkfs; nil takes run.Exec

	step func(operation string) error // for tests
}

// content is what an image holds: the name of its filesystem, or block.
type content string

const block content = "block"

// file is what the host says about one image.
type file struct {
	size      int64 // bytes
	allocated int64 // bytes of the pool
	content   content
}

// wish is what an image is to be.
type wish struct {
	size    int64 // bytes
	thick   bool
	content content
	options []string // for mkfs, those that mkfs.Check allows
	root    volume.Root
}

// host is what the backend asks of the machine; the one seam for its tests.
// Names are relative to the pool. No method follows a symlink. What is not
// there is fs.ErrNotExist; what is no image is volume.ErrInvalid.
type host interface {
	copier
	// Stat reads an image.
	Stat(name string) (file, error)
	// Make makes an image, durable and formatted but under a name that does
	// not count. What was there under that name is replaced.
	Make(ctx context.Context, name string, w wish) error
	// Rename moves durably and never replaces.
	Rename(from, to string) error
	// Extend makes an image larger, durably, and its device if it has one.
	Extend(name string, size int64, thick bool) error
	// Free removes an image; its bytes are free then. Absent is nil.
	Free(name string) error
	// Names lists a directory.
	Names(dir string) ([]string, error)
	// Device gives the loop device of an image, attaching it if attach is set;
	// "" if it has none.
	Device(name string, attach bool) (string, error)
	// Devices gives the loop devices of those of the images that have one.
	Devices(names []string) (map[string]string, error)
	// Detach ends the loop device of an image, if there is one.
	Detach(name string) error
	// Trims reports whether the pool's filesystem can tell its device which
	// blocks are free, and Trim does it.
	Trims() (bool, error)
	Trim() error
	// Space reads the filesystem at path, "" for the pool's.
	Space(path string) (space, error)
	// Reflinks reports whether images can share bytes.
	Reflinks() (bool, error)
	Close() error
}

// space is a filesystem's, in bytes and inodes.
type space struct {
	total, free, available int64 // available leaves out what only root may use
	inodes, freeInodes     int64
	fsType                 string
}

// Image is the backend.
type Image struct {
	host    host
	kind    layout.Kind
	sharing backend.Sharing
}

var (
	_ backend.Opened  = (*Image)(nil)
	_ backend.Locator = (*Image)(nil)
)

// open recovers what a cut left.
func open(_ context.Context, h host) (*Image, error) {
	b := &Image{host: h, kind: layout.Image}
	able, err := h.Reflinks()
	if err != nil {
		return nil, err
	}
	if able {
		b.sharing = backend.SharesCounted
	}
	for _, dir := range []string{layout.Tmp, layout.Trash} {
		names, err := h.Names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !b.kind.Unfinished(name) {
				continue
			}
			if err := h.Free(dir + "/" + name); err != nil {
				return nil, fmt.Errorf("free what was left unfinished: %w", err)
			}
		}
	}
	return b, nil
}

// Close lets go of the pool's directory; volumes stay attached.
func (b *Image) Close() error { return b.host.Close() }

// Abilities are both modes, and the two filesystems that it makes.
func (b *Image) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem, volume.Block}, FSTypes: []string{"ext4", "xfs"}, Thick: true, Sharing: b.sharing, Counted: true}
}

// Ensure makes or grows a volume. The filesystem in it is grown by whoever has
// it mounted (mount.Grow). An empty fsType is ext4.
func (b *Image) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	if err := b.ensure(ctx, s); err != nil {
		return volume.Info{}, fmt.Errorf("ensure volume %s: %w", s.ID, err)
	}
	return b.Get(ctx, s.ID)
}

func (b *Image) ensure(ctx context.Context, s volume.Spec) error {
	if err := layout.Check(s.ID); err != nil {
		return err
	}
	holds, least, err := wanted(s)
	if err != nil {
		return err
	}
	if err := layout.CheckSize(s.Size, least, b.maxVolume()); err != nil {
		return err
	}
	size := rounded(s.Size)
	f, err := b.host.Stat(b.kind.Path(s.ID))
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.host.Make(ctx, b.kind.TmpPath(s.ID), wish{size, s.Thick, holds, s.MkfsOptions, s.Root}); err != nil {
			return err
		}
		return b.host.Rename(b.kind.TmpPath(s.ID), b.kind.Path(s.ID))
	}
	switch {
	case err != nil:
		return err
	case !f.fits(s, holds):
		return fmt.Errorf("%w: it holds %s, %s was asked", volume.ErrExists, f.content, holds)
	case size < f.size:
		return fmt.Errorf("%w: %d bytes asked, it has %d and volumes never shrink", volume.ErrOutOfRange, s.Size, f.size)
	}
	// Also at the present size: a cut may have left the device behind its file.
	return b.host.Extend(b.kind.Path(s.ID), size, s.Thick)
}

func rounded(size int64) int64 { return (size + granularity - 1) / granularity * granularity }

// fits reports whether an image holds what a spec asks for. An empty fsType
// asks for ext4 of a new volume, of one that is there for no change: a restored
// one has the filesystem of its source.
func (f file) fits(s volume.Spec, asked content) bool {
	return f.content == asked || s.Mode == volume.Filesystem && s.FSType == "" && f.content != block
}

// wanted is what a spec asks an image to hold, and the least size for it.
// Options for mkfs are checked always and used once, when it is formatted:
// what is restored or cloned has been.
func wanted(s volume.Spec) (content, int64, error) {
	if s.Attributes != (volume.Attributes{}) {
		return "", 0, fmt.Errorf("%w: attributes of an image; it has the inodes it was formatted with", volume.ErrUnsupported)
	}
	holds, least, err := contentOf(s)
	if err == nil {
		err = layout.CheckFormat(s, string(holds))
	}
	return holds, least, err
}

func contentOf(s volume.Spec) (content, int64, error) {
	switch {
	case s.Mode == volume.Block && s.FSType == "":
		return block, 1, nil
	case s.Mode == volume.Filesystem && slices.Contains([]string{"", "ext4"}, s.FSType):
		return "ext4", minExt4, nil
	case s.Mode == volume.Filesystem && s.FSType == "xfs":
		return "xfs", minXFS, nil
	}
	return "", 0, fmt.Errorf("%w: mode %q with fsType %q; Filesystem with ext4 or xfs, or Block without", volume.ErrUnsupported, s.Mode, s.FSType)
}

func (b *Image) maxVolume() int64 {
	if s, err := b.host.Space(""); err == nil && s.fsType == "ext4" {
		return maxOnExt4
	}
	return 0
}

// Remove deletes a volume; ErrInUse while it is attached.
func (b *Image) Remove(_ context.Context, id volume.ID) error {
	if err := b.remove(id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

func (b *Image) remove(id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	// What an earlier call moved there and did not get to free.
	if err := b.host.Free(b.kind.TrashPath(id)); err != nil {
		return err
	}
	if err := b.host.Free(b.kind.TmpPath(id)); err != nil {
		return err
	}
	device, err := b.host.Device(b.kind.Path(id), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if device != "" {
		return fmt.Errorf("%w: attached as %s", volume.ErrInUse, device)
	}
	if err := b.host.Rename(b.kind.Path(id), b.kind.TrashPath(id)); err != nil {
		return err
	}
	return b.host.Free(b.kind.TrashPath(id))
}

// Get reads one volume.
func (b *Image) Get(_ context.Context, id volume.ID) (volume.Info, error) {
	f, err := b.stat(id)
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	return volume.Info{ID: id, Size: f.size, Allocated: f.allocated}, nil
}

func (b *Image) stat(id volume.ID) (file, error) {
	if err := layout.Check(id); err != nil {
		return file{}, err
	}
	f, err := b.host.Stat(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, volume.ErrNotFound
	}
	return f, err
}

// List reads all volumes.
func (b *Image) List(ctx context.Context) ([]volume.Info, error) {
	names, err := b.host.Names(layout.Volumes)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []volume.Info
	for _, name := range names {
		id, ok := b.kind.ID(name)
		if !ok {
			continue
		}
		info, err := b.Get(ctx, id)
		if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrInvalid) {
			continue // removed meanwhile, or not ours
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Attach gives the volume's loop device, with direct I/O.
func (b *Image) Attach(_ context.Context, id volume.ID) (backend.Source, error) {
	f, err := b.stat(id)
	if err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	device, err := b.host.Device(b.kind.Path(id), true)
	if err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	src := backend.Source{Device: device}
	if f.content != block {
		src.FSType = string(f.content)
	}
	return src, nil
}

// Detach ends the loop device; ErrInUse while it is mounted or open.
func (b *Image) Detach(_ context.Context, id volume.ID) error {
	err := layout.Check(id)
	if err == nil {
		err = b.host.Detach(b.kind.Path(id))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("detach volume %s: %w", id, err)
	}
	return nil
}

// Usage is what the filesystem says where it is mounted, else the bytes of
// the pool that the image holds.
func (b *Image) Usage(_ context.Context, id volume.ID, mountedAt string) (volume.Usage, error) {
	f, err := b.stat(id)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	if mountedAt == "" {
		return volume.Usage{TotalBytes: f.size, UsedBytes: f.allocated, AvailableBytes: max(0, f.size-f.allocated)}, nil
	}
	s, err := b.host.Space(mountedAt)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	return volume.Usage{
		TotalBytes: s.total, UsedBytes: s.total - s.free, AvailableBytes: s.available,
		TotalInodes: s.inodes, UsedInodes: s.inodes - s.freeInodes, AvailableInodes: s.freeInodes,
	}, nil
}

// Capacity reads the pool's filesystem.
func (b *Image) Capacity(context.Context) (volume.Capacity, error) {
	s, err := b.host.Space("")
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
	}
	return volume.Capacity{Total: s.total, Free: s.available, Enforced: true, MaxVolume: b.maxVolume(), MinVolume: granularity}, nil
}
