// Package btrfs is the backend that keeps each volume as a btrfs subvolume:
// volumes/ID, limited by a quota group.
//
// The group that is limited is not the subvolume's own but one at a level that
// is Plinth's alone (20556/N for subvolume N), which the subvolume is put
// into. With simple quotas (Linux 6.7 and later, switched on when the pool is
// opened) a subvolume that a consumer makes inside the volume joins it, so the
// limit holds for them together. On a filesystem that has full quotas on, or
// an older kernel, it does not: there a consumer that makes subvolumes escapes
// the limit by them.
//
// Metadata of the volume counts, so a volume of many tiny files is full before
// their bytes add up to its size. What a group holds is known as of the last
// transaction, at most 30 seconds ago; the limit itself holds at once.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

// minVolume is the least size in bytes: below it the metadata of an empty
// volume is a good part of its size.
const minVolume = 1 << 20

// Options configure a btrfs backend.
type Options struct {
	Dir string // the pool's path
}

// subvol is what the host says about a volume, in bytes.
type subvol struct {
	limit      int64 // 0 is none
	referenced int64
	exclusive  int64
}

// host is what the backend asks of the machine; the one seam for its tests.
// Names are relative to the pool. No method follows a symlink. What is not
// there is fs.ErrNotExist; what is no subvolume is volume.ErrInvalid.
type host interface {
	// Stat reads a subvolume and the group that limits it.
	Stat(name string) (subvol, error)
	// Make makes an empty subvolume with its limit.
	Make(name string, limit int64) error
	// Limit sets the limit, with the group for it if that is missing.
	Limit(name string, limit int64) error
	// Rename moves durably and never replaces.
	Rename(from, to string) error
	// InUse lists where a subvolume is mounted, or anything below it.
	InUse(name string) ([]string, error)
	// Free deletes a subvolume and its group and waits for the bytes. Absent
	// is nil.
	Free(ctx context.Context, name string) error
	// Names lists the directories in a directory.
	Names(dir string) ([]string, error)
	// Path is the absolute path of a name.
	Path(name string) string
	// Space reads the filesystem: total and free bytes.
	Space() (total, free int64, err error)
	Close() error
}

// Btrfs is the backend.
type Btrfs struct {
	host host
	kind layout.Kind
}

var _ backend.Opened = (*Btrfs)(nil)

// open recovers what a cut left.
func open(ctx context.Context, h host) (*Btrfs, error) {
	b := &Btrfs{host: h, kind: layout.Directory}
	for _, dir := range []string{layout.Tmp, layout.Trash} {
		names, err := h.Names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if _, ours := b.kind.UnfinishedID(name); !ours {
				continue
			}
			if err := h.Free(ctx, dir+"/"+name); err != nil {
				return nil, fmt.Errorf("free what was left unfinished: %w", err)
			}
		}
	}
	return b, nil
}

// Close lets go of the pool's directory.
func (b *Btrfs) Close() error { return b.host.Close() }

// Abilities: directories only.
func (b *Btrfs) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem}}
}

// Ensure makes or grows a volume; both are immediate.
func (b *Btrfs) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	if err := b.ensure(ctx, s); err != nil {
		return volume.Info{}, fmt.Errorf("ensure volume %s: %w", s.ID, err)
	}
	return b.Get(ctx, s.ID)
}

func (b *Btrfs) ensure(ctx context.Context, s volume.Spec) error {
	if err := layout.Check(s.ID); err != nil {
		return err
	}
	if err := layout.CheckDirectory(s); err != nil {
		return err
	}
	if err := layout.CheckSize(s.Size, minVolume, 0); err != nil {
		return err
	}
	v, err := b.host.Stat(b.kind.Path(s.ID))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b.make(ctx, s)
	case err != nil:
		return err
	case s.Size < v.limit:
		return fmt.Errorf("%w: %d bytes asked, it has %d and volumes never shrink", volume.ErrOutOfRange, s.Size, v.limit)
	case s.Size == v.limit:
		return nil
	}
	return b.host.Limit(b.kind.Path(s.ID), s.Size)
}

func (b *Btrfs) make(ctx context.Context, s volume.Spec) error {
	if err := b.host.Free(ctx, b.kind.TmpPath(s.ID)); err != nil {
		return err
	}
	if err := b.host.Make(b.kind.TmpPath(s.ID), s.Size); err != nil {
		return err
	}
	return b.host.Rename(b.kind.TmpPath(s.ID), b.kind.Path(s.ID))
}

// Remove deletes a volume and waits until btrfs has freed its bytes; ErrInUse
// while it, or anything below it, is mounted.
func (b *Btrfs) Remove(ctx context.Context, id volume.ID) error {
	if err := b.remove(ctx, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

func (b *Btrfs) remove(ctx context.Context, id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	for _, left := range []string{b.kind.TrashPath(id), b.kind.TmpPath(id)} {
		if err := b.host.Free(ctx, left); err != nil {
			return err
		}
	}
	_, err := b.host.Stat(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	where, err := b.host.InUse(b.kind.Path(id))
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return fmt.Errorf("%w: mounted at %q", volume.ErrInUse, where)
	}
	if err := b.host.Rename(b.kind.Path(id), b.kind.TrashPath(id)); err != nil {
		return err
	}
	return b.host.Free(ctx, b.kind.TrashPath(id))
}

func (b *Btrfs) stat(id volume.ID) (subvol, error) {
	if err := layout.Check(id); err != nil {
		return subvol{}, err
	}
	v, err := b.host.Stat(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return subvol{}, volume.ErrNotFound
	}
	return v, err
}

// Get reads one volume. Size 0 says that somebody took its limit away, which
// Ensure puts right.
func (b *Btrfs) Get(_ context.Context, id volume.ID) (volume.Info, error) {
	v, err := b.stat(id)
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	return volume.Info{ID: id, Size: v.limit, Allocated: v.exclusive}, nil
}

// List reads all volumes.
func (b *Btrfs) List(ctx context.Context) ([]volume.Info, error) {
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

// Attach gives the subvolume's directory; there is nothing to do for it.
func (b *Btrfs) Attach(_ context.Context, id volume.ID) (backend.Source, error) {
	if _, err := b.stat(id); err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	return backend.Source{Dir: b.host.Path(b.kind.Path(id))}, nil
}

// Detach has nothing to undo.
func (b *Btrfs) Detach(_ context.Context, id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return fmt.Errorf("detach volume: %w", err)
	}
	return nil
}

// Usage is what the volume's group counts; btrfs does not count inodes.
func (b *Btrfs) Usage(_ context.Context, id volume.ID, _ string) (volume.Usage, error) {
	v, err := b.stat(id)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	return volume.Usage{TotalBytes: v.limit, UsedBytes: v.referenced, AvailableBytes: max(0, v.limit-v.referenced)}, nil
}

// Capacity reads the filesystem. What a volume's size promises is metadata and
// data together.
func (b *Btrfs) Capacity(context.Context) (volume.Capacity, error) {
	total, free, err := b.host.Space()
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
	}
	return volume.Capacity{Total: total, Free: free, Enforced: true, MinVolume: minVolume}, nil
}
