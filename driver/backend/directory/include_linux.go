package directory

import (
	"context"
	"errors"
	"os"

	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Include implements tree.Keeper: the directory gets a project, then, from the
// top down, all that is in it, so that what is made meanwhile has it from its
// directory. Symlinks and special files, which cannot be opened, stay outside
// and count for nobody. The limits come last: until then nothing is refused.
func (m *projects) Include(ctx context.Context, name string, l tree.Limits) error {
	f, id, err := m.open(name)
	if errors.Is(err, volume.ErrInvalid) { // it has no project of ours yet
		if f, err = m.plain.open(name); err == nil {
			id, err = m.allocate(f)
		}
	}
	if err == nil {
		err = m.dir.Walk(ctx, name, func(below *os.File) error { return quota.SetProject(below, id) })
	}
	if err == nil {
		err = quota.SetLimits(f, id, limits(l))
	}
	if err == nil {
		err = f.Sync()
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Exclude implements tree.Keeper: the reverse, the directory itself last, for
// it tells of which project the rest is.
func (m *projects) Exclude(ctx context.Context, name string) error {
	f, id, err := m.open(name)
	if errors.Is(err, volume.ErrInvalid) {
		return nil // done before
	}
	if err != nil {
		return err
	}
	err = quota.SetLimits(f, id, quota.Limits{})
	if err == nil {
		err = m.dir.Walk(ctx, name, quota.ClearProject)
	}
	if err == nil {
		err = errors.Join(quota.ClearProject(f), f.Sync())
	}
	return errors.Join(err, f.Close())
}
