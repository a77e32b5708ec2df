package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/clone"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// Open opens the backend over a pool's directory. With QuotaProject it makes
// sure that the filesystem holds project limits: ErrUnsupported, with the ways
// out, if not. It makes the places in the directory and frees what a cut left.
func Open(ctx context.Context, o Options) (*Directory, error) {
	dir, err := beneath.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open directory pool: %w", err)
	}
	b, err := open(ctx, dir, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open directory pool %s: %w", o.Dir, err), dir.Close())
	}
	return b, nil
}

func open(ctx context.Context, dir *beneath.Dir, o Options) (*Directory, error) {
	var keeper tree.Keeper
	options := tree.Options{MinVolume: minVolume, Granularity: granularity}
	if err := o.check(); err != nil {
		return nil, err
	}
	switch o.Quota {
	case QuotaNone:
		keeper, options.MinVolume = &plain{dir: dir}, 1
	case QuotaProject, "":
		if err := Probe(dir.Name()); err != nil {
			return nil, err
		}
		if err := setGrace(dir.File(), o.Grace); err != nil {
			return nil, err
		}
		keeper, options.Enforced, options.Attributes = &projects{plain: plain{dir: dir}}, true, true
	}
	if err := layout.Prepare(dir.Mkdir); err != nil {
		return nil, err
	}
	able, err := clone.Able(dir.File())
	if err != nil {
		return nil, err
	}
	if able {
		options.Sharing = backend.SharesCounted
	}
	stepped, files := tree.Stepped(keeper, tree.OpenFiles(dir), o.step)
	t, err := tree.New(ctx, stepped, files, options)
	if err != nil {
		return nil, err
	}
	if p, ok := keeper.(*projects); ok {
		err = p.sweep()
	}
	return &Directory{Tree: t, dir: dir, keeper: stepped, files: files, step: o.step}, err
}

func (o Options) check() error {
	switch {
	case o.Quota != QuotaProject && o.Quota != QuotaNone && o.Quota != "":
		return fmt.Errorf("%w: quota %q; %q or %q", volume.ErrInvalid, o.Quota, QuotaProject, QuotaNone)
	case o.Grace != 0 && o.Quota == QuotaNone:
		return fmt.Errorf("%w: a grace time without quotas", volume.ErrInvalid)
	case o.Grace < 0 || o.Grace%time.Second != 0:
		return fmt.Errorf("%w: a grace time of %s; whole seconds, 0 leaves it as it is", volume.ErrInvalid, o.Grace)
	}
	return nil
}

// setGrace sets the filesystem's grace time, unless it is so or none is asked.
func setGrace(dir *os.File, want time.Duration) error {
	if want == 0 {
		return nil
	}
	if has, err := quota.Grace(dir); err != nil || has == want {
		return err
	}
	return quota.SetGrace(dir, want)
}

// Probe says whether a path can be a pool with project quotas: ErrUnsupported
// with the reason and the ways out if not.
func Probe(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory pool: %w", err)
	}
	defer dir.Close()
	if err := quota.Probe(dir); err != nil {
		where := path
		if m, e := mount.Containing(path); e == nil {
			where = m.Point
		}
		return fmt.Errorf("%w: the filesystem at %s is not mounted with prjquota; mount it so, use backend image, or set quota: none (%w)",
			volume.ErrUnsupported, where, err)
	}
	id, inherited, err := quota.ProjectOf(dir)
	if err != nil {
		return err
	}
	if inherited && id != 0 {
		return fmt.Errorf("%w: %s belongs to project %d, and a file has one project only; use a directory outside it, or set quota: none",
			volume.ErrUnsupported, path, id)
	}
	return nil
}

// plain is the Keeper without limits, and the half of the one with them.
type plain struct {
	dir *beneath.Dir
}

// open opens a directory that may be a volume.
func (m *plain) open(name string) (*os.File, error) {
	f, err := m.dir.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%w: %s is no directory", volume.ErrInvalid, name)
	}
	return f, err
}

// Stat implements tree.Keeper.
func (m *plain) Stat(name string) (tree.Dir, error) {
	f, err := m.open(name)
	if err != nil {
		return tree.Dir{}, err
	}
	return tree.Dir{Exclusive: -1}, f.Close()
}

// Make implements tree.Keeper.
func (m *plain) Make(name string, _ tree.Limits) error {
	if err := m.dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	return m.dir.Sync(name)
}

// Limit implements tree.Keeper.
func (m *plain) Limit(string, tree.Limits) error { return nil }

// Usage walks the volume: what it may use is what the filesystem has left.
func (m *plain) Usage(ctx context.Context, name string) (volume.Usage, error) {
	bytes, inodes, err := m.dir.Count(ctx, name)
	if err != nil {
		return volume.Usage{}, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.dir.File().Fd()), &st); err != nil {
		return volume.Usage{}, fmt.Errorf("statfs %s: %w", m.dir.Name(), err)
	}
	free := int64(st.Bavail) * st.Frsize
	u := volume.Usage{TotalBytes: bytes + free, UsedBytes: bytes, AvailableBytes: free}
	if st.Files > 0 { // btrfs does not count them
		u.TotalInodes, u.UsedInodes, u.AvailableInodes = inodes+int64(st.Ffree), inodes, int64(st.Ffree)
	}
	return u, nil
}

// Free implements tree.Keeper.
func (m *plain) Free(ctx context.Context, name string) error {
	if err := m.dir.RemoveTree(ctx, name); err != nil {
		if errors.Is(err, beneath.ErrMount) {
			err = fmt.Errorf("%w: %w", volume.ErrInUse, err)
		}
		return err
	}
	return device.AwaitFreed(m.dir.File())
}

// Include implements tree.Keeper.
func (m *plain) Include(context.Context, string, tree.Limits) error { return nil }

// Exclude implements tree.Keeper.
func (m *plain) Exclude(context.Context, string) error { return nil }

func (m *plain) freeInodes() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.dir.File().Fd()), &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", m.dir.Name(), err)
	}
	return int64(st.Ffree), nil
}
