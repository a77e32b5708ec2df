package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/beneath"
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
	b, err := openOn(ctx, &machine{dir: dir}, o.step)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open btrfs pool %s: %w", o.Dir, err), dir.Close())
	}
	return b, nil
}

func openOn(ctx context.Context, m *machine, step tree.Step) (*Btrfs, error) {
	is, err := subvolume.IsBtrfs(m.dir.File())
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, fmt.Errorf("%w: it is not on btrfs", volume.ErrUnsupported)
	}
	if m.mode, err = subvolume.EnableQuota(m.dir.File()); err != nil {
		return nil, err
	}
	if err := layout.Prepare(m.dir.Mkdir); err != nil {
		return nil, err
	}
	sharing := backend.SharesApart
	if m.mode == subvolume.QuotaSimple {
		sharing = backend.SharesFree
	}
	keeper, files := tree.Stepped(m, &files{tree.OpenFiles(m.dir), m.dir}, step)
	t, err := tree.New(ctx, keeper, files, tree.Options{Enforced: true, MinVolume: minVolume, Granularity: 1, Sharing: sharing, NoImport: errNoImport})
	if err != nil {
		return nil, err
	}
	b := &Btrfs{Tree: t, machine: m, step: step}
	return b, errors.Join(m.sealSnapshots(), m.sweepGroups())
}

// files renames with one transaction, which makes all that was done before it
// durable, in its order.
type files struct {
	tree.Files
	dir *beneath.Dir
}

// Rename implements tree.Files.
func (f *files) Rename(from, to string) error {
	if err := f.dir.Move(from, to); err != nil {
		return err
	}
	return subvolume.Commit(f.dir.File())
}

// machine is the Keeper over btrfs.
type machine struct {
	dir  *beneath.Dir
	mode subvolume.QuotaMode
}

// groupOf is the group that limits a subvolume. Under full quotas it is the
// subvolume's own: no other would count what is nested, and putting one that
// holds something already, a clone, into another takes a rescan of the whole
// filesystem.
func (m *machine) groupOf(id subvolume.ID) subvolume.Group {
	if m.mode == subvolume.QuotaSimple {
		return subvolume.GroupOf(level, id)
	}
	return subvolume.GroupOf(0, id)
}

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

func (m *machine) group(name string) (subvolume.GroupUsage, error) {
	f, id, err := m.open(name)
	if err != nil {
		return subvolume.GroupUsage{}, err
	}
	defer f.Close()
	u, _, err := subvolume.Usage(f, m.groupOf(id))
	return u, err
}

// Stat implements tree.Keeper.
func (m *machine) Stat(name string) (tree.Dir, error) {
	u, err := m.group(name)
	return tree.Dir{Limits: tree.Limits{Bytes: u.Limit}, Exclusive: u.Exclusive}, err
}

// Usage has no inodes: btrfs does not count them.
func (m *machine) Usage(_ context.Context, name string) (volume.Usage, error) {
	u, err := m.group(name)
	return volume.Usage{TotalBytes: u.Limit, UsedBytes: u.Referenced, AvailableBytes: max(0, u.Limit-u.Referenced)}, err
}

// Make implements tree.Keeper. A transaction that ends in between holds what
// was done so far and nothing later, so the rename that follows is what makes
// the whole durable.
func (m *machine) Make(name string, l tree.Limits) error {
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
	return m.limit(name, l)
}

// Limit implements tree.Keeper.
func (m *machine) Limit(name string, l tree.Limits) error {
	if err := m.limit(name, l); err != nil {
		return err
	}
	return subvolume.Commit(m.dir.File())
}

// limit asks by the pool's descriptor, not the volume's: btrfs charges what it
// writes for the request to the subvolume that is asked, and a full one has
// nothing left.
func (m *machine) limit(name string, l tree.Limits) error {
	f, id, err := m.open(name)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	pool, g := m.dir.File(), m.groupOf(id)
	own := subvolume.GroupOf(0, id)
	if own == g {
		return subvolume.Limit(pool, g, l.Bytes)
	}
	if err := subvolume.CreateGroup(pool, g); err != nil {
		return err
	}
	// The limit before the member: never a member without a limit.
	if err := subvolume.Limit(pool, g, l.Bytes); err != nil {
		return err
	}
	return subvolume.Assign(pool, own, g)
}

// Free implements tree.Keeper.
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
	// Deleting what is nested in it writes to it, and it may be full.
	if err := subvolume.Limit(m.dir.File(), m.groupOf(id), subvolume.Unlimited); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ids, err := subvolume.Delete(parent, path.Base(name))
	if err != nil {
		return err
	}
	if err := subvolume.WaitDeleted(ctx, parent, ids...); err != nil {
		return err
	}
	return m.removeGroups(id, ids...)
}

// removeGroups removes the group of a volume that is gone, after those of its
// subvolumes, where the kernel has not done that itself. A group that still
// counts something (an extent that a snapshot shares) stays until the pool is
// opened again.
func (m *machine) removeGroups(id subvolume.ID, members ...subvolume.ID) error {
	var groups []subvolume.Group
	for _, member := range append(members, id) {
		groups = append(groups, subvolume.GroupOf(0, member))
	}
	for _, g := range append(groups, subvolume.GroupOf(level, id)) {
		if err := subvolume.RemoveGroup(m.dir.File(), g); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// sweepGroups removes the groups whose subvolume is gone: Plinth's own, and
// those that the kernel made for subvolumes and keeps (a process that was
// killed has not removed them). A group without a subvolume limits nothing and
// says nothing about anything, whosever subvolume it was.
func (m *machine) sweepGroups() error {
	for _, at := range []uint16{0, level} {
		groups, err := subvolume.Groups(m.dir.File(), at)
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
			if err := subvolume.RemoveGroup(m.dir.File(), g); err != nil && !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
	}
	return nil
}

// errNoImport: an empty subvolume could be made and filled, by a copy.
var errNoImport = fmt.Errorf("%w: a directory cannot become a btrfs subvolume without being copied; use a pool with backend directory", volume.ErrUnsupported)

// Include implements tree.Keeper.
func (m *machine) Include(context.Context, string, tree.Limits) error { return errNoImport }

// Exclude implements tree.Keeper.
func (m *machine) Exclude(context.Context, string) error { return errNoImport }
