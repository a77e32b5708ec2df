package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/subvolume"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// level is where Plinth's quota groups are, "PL"; nothing else has groups there.
const level = 0x504c

// Open opens the backend over a pool's directory on btrfs. It switches quotas
// on if they are off, makes the places in the directory, and frees what a cut
// left.
func Open(ctx context.Context, o Options) (*Btrfs, error) {
	dir, err := beneath.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open btrfs pool: %w", err)
	}
	b, err := openOn(ctx, &machine{dir: dir})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open btrfs pool %s: %w", o.Dir, err), dir.Close())
	}
	return b, nil
}

func openOn(ctx context.Context, m *machine) (*Btrfs, error) {
	is, err := subvolume.IsBtrfs(m.dir.File())
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, fmt.Errorf("%w: it is not on btrfs", volume.ErrUnsupported)
	}
	if _, err := subvolume.EnableQuota(m.dir.File()); err != nil {
		return nil, err
	}
	if err := layout.Prepare(m.dir.Mkdir); err != nil {
		return nil, err
	}
	b, err := open(ctx, m)
	if err != nil {
		return nil, err
	}
	return b, m.sweepGroups()
}

// machine is the host for real.
type machine struct {
	dir *beneath.Dir
}

func (m *machine) Close() error { return m.dir.Close() }

func (m *machine) Path(name string) string { return filepath.Join(m.dir.Name(), name) }

// open opens the root of a subvolume.
func (m *machine) open(name string) (*os.File, subvolume.ID, error) {
	f, err := m.dir.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, 0, fmt.Errorf("%w: %s is no subvolume", volume.ErrInvalid, name)
	}
	if err != nil {
		return nil, 0, err
	}
	is, err := subvolume.IsSubvolume(f)
	if err == nil && !is {
		err = fmt.Errorf("%w: %s is no subvolume", volume.ErrInvalid, name)
	}
	var id subvolume.ID
	if err == nil {
		id, err = subvolume.Of(f)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, id, nil
}

func (m *machine) Stat(name string) (subvol, error) {
	f, id, err := m.open(name)
	if err != nil {
		return subvol{}, err
	}
	defer f.Close()
	u, _, err := subvolume.Usage(f, subvolume.GroupOf(level, id))
	return subvol{limit: u.Limit, referenced: u.Referenced, exclusive: u.Exclusive}, err
}

func (m *machine) Make(name string, limit int64) error {
	parent, err := m.dir.OpenFile(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := subvolume.Create(parent, path.Base(name)); err != nil {
		return err
	}
	f, _, err := m.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o755); err != nil { // whatever the umask
		return err
	}
	return m.Limit(name, limit)
}

func (m *machine) Limit(name string, limit int64) error {
	f, id, err := m.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	g := subvolume.GroupOf(level, id)
	if err := subvolume.CreateGroup(f, g); err != nil {
		return err
	}
	// The limit before the member: never a member without a limit.
	if err := subvolume.Limit(f, g, limit); err != nil {
		return err
	}
	if err := subvolume.Assign(f, subvolume.GroupOf(0, id), g); err != nil {
		return err
	}
	return subvolume.Commit(f)
}

func (m *machine) Rename(from, to string) error { return m.dir.Rename(from, to) }

func (m *machine) InUse(name string) ([]string, error) {
	of, err := mount.Of(m.Path(name))
	if err != nil {
		return nil, err
	}
	below, err := mount.AtOrBelow(m.Path(name))
	if err != nil {
		return nil, err
	}
	var where []string
	for _, x := range append(of, below...) {
		where = append(where, x.Point)
	}
	return where, nil
}

func (m *machine) Free(ctx context.Context, name string) error {
	f, id, err := m.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, volume.ErrInvalid) {
		// A plain directory of our name: nothing of ours makes one, but what
		// is in tmp or trash under our names is ours to free.
		return m.dir.RemoveTree(ctx, name)
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	parent, err := m.dir.OpenFile(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := subvolume.Delete(parent, path.Base(name)); err != nil {
		return err
	}
	if err := subvolume.WaitDeleted(ctx, parent, id); err != nil {
		return err
	}
	return m.removeGroups(id)
}

// removeGroups removes the groups of a subvolume that is gone. One that still
// counts something (an extent that a snapshot shares, a nested subvolume that
// is being freed) stays until the pool is opened again.
func (m *machine) removeGroups(id subvolume.ID) error {
	for _, g := range []subvolume.Group{subvolume.GroupOf(level, id), subvolume.GroupOf(0, id)} {
		if err := subvolume.RemoveGroup(m.dir.File(), g); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// sweepGroups removes Plinth's groups whose subvolume is gone.
func (m *machine) sweepGroups() error {
	groups, err := subvolume.Groups(m.dir.File(), level)
	if err != nil {
		return err
	}
	for g := range groups {
		there, err := subvolume.Exists(m.dir.File(), g.Number())
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := m.removeGroups(g.Number()); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) Names(dir string) ([]string, error) {
	entries, err := m.dir.Entries(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (m *machine) Space() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.dir.File().Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", m.dir.Name(), err)
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}
