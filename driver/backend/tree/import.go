package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Imports says why not, if directories cannot become volumes (backend.Importer).
func (b *Tree) Imports() error { return b.options.NoImport }

// Import makes a directory a volume (backend.Importer): a symlink that leads to
// the volume's place is made there, and changes places with the directory. So
// the former name leads to the data at all times, and whoever deletes it
// deletes a link. Then come the limits.
func (b *Tree) Import(ctx context.Context, name string, s volume.Spec) (volume.Info, error) {
	if err := b.importDir(ctx, name, s); err != nil {
		return volume.Info{}, fmt.Errorf("import %s as volume %s: %w", b.files.Path(name), s.ID, err)
	}
	return b.Get(ctx, s.ID)
}

func (b *Tree) importDir(ctx context.Context, name string, s volume.Spec) error {
	want, err := b.Limits(s)
	if err != nil {
		return err
	}
	place := b.kind.Path(s.ID)
	moved, err := b.files.Directory(place)
	if err != nil {
		return err
	}
	if moved == 0 {
		if err := b.movable(name); err != nil {
			return err
		}
		if err := b.swap(name, place); err != nil {
			return err
		}
	}
	return b.keeper.Include(ctx, place, want)
}

// movable refuses what cannot become a volume.
func (b *Tree) movable(name string) error {
	is, err := b.files.Directory(name)
	if err != nil {
		return err
	}
	if is == 0 {
		return fmt.Errorf("%w: it is no directory", volume.ErrInvalid)
	}
	where, err := b.files.InUse(name)
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return fmt.Errorf("%w: mounted at %q", volume.ErrInUse, where)
	}
	return nil
}

// swap moves the directory name to place and leaves a symlink to it. If another
// was put there since it was looked at, that one is put back.
func (b *Tree) swap(name, place string) error {
	is, err := b.files.Directory(name)
	if err != nil {
		return err
	}
	if err := b.files.Link(place, place); err != nil {
		return err
	}
	if err := b.files.Exchange(name, place); err != nil {
		return errors.Join(err, b.files.Unlink(place, place))
	}
	if now, err := b.files.Directory(place); err != nil || now != is {
		err = errors.Join(fmt.Errorf("%w: it was replaced meanwhile", volume.ErrInvalid), err)
		return errors.Join(err, b.files.Exchange(name, place), b.files.Unlink(place, place))
	}
	return nil
}

// Release makes a volume a directory (backend.Importer).
func (b *Tree) Release(ctx context.Context, id volume.ID, name string) error {
	if err := b.release(ctx, id, name); err != nil {
		return fmt.Errorf("release volume %s to %s: %w", id, b.files.Path(name), err)
	}
	return nil
}

func (b *Tree) release(ctx context.Context, id volume.ID, name string) error {
	place := b.kind.Path(id)
	is, err := b.files.Directory(place)
	if err != nil {
		return err
	}
	if is == 0 { // it has gone before, or never came
		return b.files.Unlink(place, place)
	}
	where, err := b.files.InUse(place)
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return fmt.Errorf("%w: mounted at %q", volume.ErrInUse, where)
	}
	// Where nothing is a link comes first, so that one way is left.
	if err := b.files.Link(place, name); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: something is there; move it away", volume.ErrExists)
	} else if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the directory above is not there; make it first", volume.ErrInvalid)
	} else if err != nil {
		return err
	}
	if err := b.keeper.Exclude(ctx, place); err != nil {
		return err
	}
	if err := b.files.Exchange(place, name); err != nil {
		return err
	}
	return b.files.Unlink(place, place)
}
