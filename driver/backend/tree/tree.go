// Package tree is what the backends have in common that give directories: the
// order of steps that makes, grows, finds and removes one, whatever limits it.
// A volume is made under a temporary name, with its limit, then renamed into
// place; it is renamed into the trash, then freed.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Limits are what one directory may hold; 0 is no limit.
type Limits struct {
	Bytes  int64
	Soft   int64 // bytes that it may exceed for the grace time only
	Inodes int64 // its root is one
}

// Dir is what is known cheaply about one directory.
type Dir struct {
	Limits    Limits
	Exclusive int64 // bytes that removing it would free; -1 where that is not known cheaply
}

// Keeper is the part that each backend does its own way. Names are relative to
// the pool. No method follows a symlink. What is not there is fs.ErrNotExist;
// what is there and cannot be a volume is volume.ErrInvalid. With Files it is
// the one seam for tests that cut a backend short.
type Keeper interface {
	// Stat reads one directory.
	Stat(name string) (Dir, error)
	// Make makes an empty one with its limits.
	Make(name string, l Limits) error
	// Limit sets the limits of one, all at once.
	Limit(name string, l Limits) error
	// Usage counts one directory alone.
	Usage(ctx context.Context, name string) (volume.Usage, error)
	// Free removes one with all that is in it and what limits it, and returns
	// once the bytes are free. Absent is nil.
	Free(ctx context.Context, name string) error
	// Include gives limits to one that others made, with all that is in it, and
	// Exclude takes them off. Each finishes what a cut left.
	Include(ctx context.Context, name string, l Limits) error
	Exclude(ctx context.Context, name string) error
}

// Files is the part that is the same for all: see OpenFiles.
type Files interface {
	// Rename moves durably and never replaces.
	Rename(from, to string) error
	// SetRoot gives a directory its owner and permissions, durably.
	SetRoot(name string, r volume.Root) error
	// Exchange makes two names change places, at one instant and durably.
	Exchange(a, b string) error
	// Link makes a symlink to the volume at the name to, unless it is there;
	// fs.ErrExist if anything else is. Unlink removes one, if it is there.
	Link(to, name string) error
	Unlink(to, name string) error
	// Directory tells what a name is: a directory by its inode number, 0 if
	// anything else or nothing is there.
	Directory(name string) (inode uint64, err error)
	// Names lists the directories in a directory.
	Names(dir string) ([]string, error)
	// InUse lists where a directory, or anything below it, is mounted, and
	// what is mounted below it.
	InUse(name string) ([]string, error)
	// Path is the absolute path of a name.
	Path(name string) string
	// Trims reports whether the filesystem can tell its device which blocks
	// are free, and Trim does it.
	Trims() (bool, error)
	Trim() error
	// Space reads the filesystem: total and free bytes.
	Space() (total, free int64, err error)
	Close() error
}

// Options say how a backend's volumes are.
type Options struct {
	Enforced    bool  // limits hold
	Attributes  bool  // limits other than that of bytes are there, and hold
	MinVolume   int64 // bytes
	Granularity int64 // bytes; sizes are rounded up to a multiple of it
	Sharing     backend.Sharing
	// NoImport is why a directory cannot become a volume; nil if it can.
	NoImport error
}

// Tree is a backend over a Keeper and Files.
type Tree struct {
	keeper  Keeper
	files   Files
	options Options
	kind    layout.Kind
}

var _ backend.Opened = (*Tree)(nil)

// trashPatience is how long New frees what is in the trash. What is left of it
// is freed by Remove, which the pool's record of it asks for.
const trashPatience = 2 * time.Second

// New gives the backend after it has freed what a cut left.
func New(ctx context.Context, k Keeper, f Files, o Options) (*Tree, error) {
	b := &Tree{keeper: k, files: f, options: o, kind: layout.Directory}
	patient, cancel := context.WithTimeout(ctx, trashPatience)
	defer cancel()
	for dir, ctx := range map[string]context.Context{layout.Tmp: ctx, layout.Trash: patient} {
		names, err := f.Names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !b.kind.Unfinished(name) {
				continue
			}
			err := k.Free(ctx, dir+"/"+name)
			if errors.Is(err, context.DeadlineExceeded) && ctx == patient {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("free what was left unfinished: %w", err)
			}
		}
	}
	return b, nil
}

// Close lets go of the pool's directory.
func (b *Tree) Close() error { return b.files.Close() }

// Abilities are directories only.
func (b *Tree) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem}, Attributes: b.options.Attributes, Sharing: b.options.Sharing,
		Counted: b.options.Enforced} // what is limited is counted
}

// Ensure makes or grows a volume, and gives it the limits that its attributes
// ask for; all is immediate.
func (b *Tree) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	if err := b.ensure(ctx, s); err != nil {
		return volume.Info{}, fmt.Errorf("ensure volume %s: %w", s.ID, err)
	}
	return b.Get(ctx, s.ID)
}

func (b *Tree) ensure(ctx context.Context, s volume.Spec) error {
	want, err := b.Limits(s)
	if err != nil {
		return err
	}
	v, err := b.keeper.Stat(b.kind.Path(s.ID))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b.make(ctx, s, want)
	case err != nil:
		return err
	case !b.options.Enforced:
		return nil
	case want.Bytes < v.Limits.Bytes:
		return fmt.Errorf("%w: %d bytes asked, it has %d and volumes never shrink", volume.ErrOutOfRange, s.Size, v.Limits.Bytes)
	case want == v.Limits:
		return nil
	}
	return b.keeper.Limit(b.kind.Path(s.ID), want)
}

// Limits checks a spec and says what its volume may hold. A size, and the soft
// limit, which is a part of it, are rounded up to the granularity.
func (b *Tree) Limits(s volume.Spec) (Limits, error) {
	err := errors.Join(layout.Check(s.ID), layout.CheckDirectory(s), s.Attributes.Check())
	if err == nil {
		err = layout.CheckSize(s.Size, b.options.MinVolume, 0)
	}
	if err == nil && s.Attributes != (volume.Attributes{}) && !b.options.Attributes {
		err = fmt.Errorf("%w: limits other than of bytes; project quotas (backend directory) have them", volume.ErrUnsupported)
	}
	rounded := func(bytes int64) int64 {
		return (bytes + b.options.Granularity - 1) / b.options.Granularity * b.options.Granularity
	}
	l := Limits{Bytes: rounded(s.Size), Inodes: s.Attributes.Inodes}
	percent := int64(s.Attributes.SoftLimit)
	l.Soft = rounded(l.Bytes/100*percent + l.Bytes%100*percent/100)
	return l, err
}

func (b *Tree) make(ctx context.Context, s volume.Spec, l Limits) error {
	tmp := b.kind.TmpPath(s.ID)
	if err := b.keeper.Free(ctx, tmp); err != nil {
		return err
	}
	if err := b.keeper.Make(tmp, l); err != nil {
		return err
	}
	if s.Root != (volume.Root{}) {
		if err := b.files.SetRoot(tmp, s.Root); err != nil {
			return err
		}
	}
	return b.files.Rename(tmp, b.kind.Path(s.ID))
}

// Remove deletes a volume and waits until its bytes are free; ErrInUse while it, or anything below it, is mounted.
func (b *Tree) Remove(ctx context.Context, id volume.ID) error {
	if err := b.remove(ctx, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

func (b *Tree) remove(ctx context.Context, id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	for _, left := range []string{b.kind.TrashPath(id), b.kind.TmpPath(id)} {
		if err := b.keeper.Free(ctx, left); err != nil {
			return err
		}
	}
	_, err := b.keeper.Stat(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	where, err := b.files.InUse(b.kind.Path(id))
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return fmt.Errorf("%w: mounted at %q", volume.ErrInUse, where)
	}
	if err := b.files.Rename(b.kind.Path(id), b.kind.TrashPath(id)); err != nil {
		return err
	}
	return b.keeper.Free(ctx, b.kind.TrashPath(id))
}

func (b *Tree) stat(id volume.ID) (Dir, error) {
	if err := layout.Check(id); err != nil {
		return Dir{}, err
	}
	v, err := b.keeper.Stat(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Dir{}, volume.ErrNotFound
	}
	return v, err
}

// Get reads one volume. Size 0 says that somebody took its limit away, which
// Ensure puts right.
func (b *Tree) Get(_ context.Context, id volume.ID) (volume.Info, error) {
	v, err := b.stat(id)
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	return volume.Info{ID: id, Size: v.Limits.Bytes, Allocated: v.Exclusive}, nil
}

// List reads all volumes.
func (b *Tree) List(ctx context.Context) ([]volume.Info, error) {
	names, err := b.files.Names(layout.Volumes)
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
func (b *Tree) Attach(_ context.Context, id volume.ID) (backend.Source, error) {
	if _, err := b.stat(id); err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	return backend.Source{Dir: b.files.Path(b.kind.Path(id))}, nil
}

// Detach has nothing to undo.
func (b *Tree) Detach(_ context.Context, id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return fmt.Errorf("detach volume: %w", err)
	}
	return nil
}

// Usage counts one volume alone.
func (b *Tree) Usage(ctx context.Context, id volume.ID, _ string) (volume.Usage, error) {
	var u volume.Usage
	_, err := b.stat(id)
	if err == nil {
		u, err = b.keeper.Usage(ctx, b.kind.Path(id))
	}
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	return u, nil
}

// Capacity reads the filesystem.
func (b *Tree) Capacity(context.Context) (volume.Capacity, error) {
	total, free, err := b.files.Space()
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
	}
	return volume.Capacity{Total: total, Free: free, Enforced: b.options.Enforced, MinVolume: b.options.MinVolume}, nil
}
