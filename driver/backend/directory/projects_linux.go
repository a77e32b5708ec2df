package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// The range of projects that is Plinth's. kubelet hands out projects from
// 1048577 for ephemeral storage, people take small numbers.
const (
	firstProject quota.Project = 0x50000000
	lastProject  quota.Project = 0x5fffffff
)

// projects is the Keeper that limits a directory by its project.
type projects struct {
	plain
	// allocating keeps two volumes of this pool from trying the same number;
	// that another pool on the filesystem does is found out afterwards.
	allocating sync.Mutex
}

// open opens a volume and reads its project; a directory without one of ours
// was not made by this backend.
func (m *projects) open(name string) (*os.File, quota.Project, error) {
	f, err := m.plain.open(name)
	if err != nil {
		return nil, 0, err
	}
	id, inherited, err := quota.ProjectOf(f)
	if err == nil && (id < firstProject || id > lastProject || !inherited) {
		err = fmt.Errorf("%w: %s has no project of Plinth's, so nothing limits it", volume.ErrInvalid, name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, id, nil
}

func (m *projects) quota(name string) (quota.Quota, error) {
	f, id, err := m.open(name)
	if err != nil {
		return quota.Quota{}, err
	}
	defer f.Close()
	return quota.Get(f, id)
}

// Stat implements tree.Keeper.
func (m *projects) Stat(name string) (tree.Dir, error) {
	q, err := m.quota(name)
	l := tree.Limits{Bytes: q.Limits.Bytes, Soft: q.Limits.SoftBytes, Inodes: q.Limits.Inodes}
	return tree.Dir{Limits: l, Exclusive: q.Bytes}, err
}

// Usage is the quota report. Without a limit on inodes, what is left of them
// is the filesystem's.
func (m *projects) Usage(ctx context.Context, name string) (volume.Usage, error) {
	q, err := m.quota(name)
	if err != nil {
		return volume.Usage{}, err
	}
	l := q.Limits
	u := volume.Usage{TotalBytes: l.Bytes, UsedBytes: q.Bytes, AvailableBytes: max(0, l.Bytes-q.Bytes),
		TotalInodes: l.Inodes, UsedInodes: q.Inodes, AvailableInodes: max(0, l.Inodes-q.Inodes)}
	if l.Inodes == 0 {
		free, err := m.freeInodes()
		if err != nil {
			return volume.Usage{}, err
		}
		u.TotalInodes, u.AvailableInodes = q.Inodes+free, free
	}
	return u, nil
}

// Make implements tree.Keeper.
func (m *projects) Make(name string, l tree.Limits) error {
	if err := m.dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	f, err := m.plain.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := m.allocate(f)
	if err != nil {
		return err
	}
	if err := quota.SetLimits(f, id, limits(l)); err != nil {
		return err
	}
	return f.Sync()
}

// Limit implements tree.Keeper.
func (m *projects) Limit(name string, l tree.Limits) error {
	f, id, err := m.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return quota.SetLimits(f, id, limits(l))
}

func limits(l tree.Limits) quota.Limits {
	return quota.Limits{Bytes: l.Bytes, SoftBytes: l.Soft, Inodes: l.Inodes}
}

// attempts bounds the races of allocate.
const attempts = 100

// allocate puts an empty directory into a project that nobody uses: no file
// is in it, no limit is on it, and nobody has given it a name. Whether another
// did the same at the same time is told by the count of inodes, which must be
// one; then both try others. So whoever finds its own inode alone in a project
// without limits has the number, until it takes the inode out.
func (m *projects) allocate(dir *os.File) (quota.Project, error) {
	m.allocating.Lock()
	defer m.allocating.Unlock()
	used, err := quota.InUse(dir, firstProject, lastProject)
	if err != nil {
		return 0, err
	}
	named, err := quota.Named(os.DirFS("/etc"))
	if err != nil {
		return 0, err
	}
	id := firstProject
	for range attempts {
		for used[id].Used() || named[id] {
			id++
		}
		if id > lastProject {
			return 0, fmt.Errorf("%w: no project number is free", volume.ErrNoCapacity)
		}
		if err := quota.SetProject(dir, id); err != nil {
			return 0, err
		}
		q, err := quota.Get(dir, id)
		if err != nil {
			return 0, err
		}
		if q.Inodes == 1 && q.Limits == (quota.Limits{}) {
			return id, nil
		}
		id += 1 + quota.Project(rand.IntN(64))
	}
	return 0, fmt.Errorf("%w: no free project number in %d attempts", volume.ErrBusy, attempts)
}

// How often Free looks whether XFS has freed what was unlinked.
const (
	firstLook = time.Millisecond
	lastLook  = 200 * time.Millisecond
)

// Free takes the limits away, removes the tree and waits until the project
// holds nothing of it. A file without a name keeps the number meanwhile: else
// another pool on the filesystem might take it as soon as the tree is gone, and
// what that one puts into it would be waited for as well.
func (m *projects) Free(ctx context.Context, name string) error {
	f, id, err := m.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, volume.ErrInvalid) {
		return m.plain.Free(ctx, name) // cut before it had a project
	}
	if err != nil {
		return err
	}
	// The limits first: ext4 lets nothing into a project that is full.
	if err := errors.Join(quota.SetLimits(f, id, quota.Limits{}), f.Close()); err != nil {
		return err
	}
	holder, err := m.dir.OpenFile(layout.Tmp, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer holder.Close()
	if err := quota.SetProject(holder, id); err != nil {
		return err
	}
	if err := m.plain.Free(ctx, name); err != nil {
		return err
	}
	if err := m.emptied(ctx, holder, id); err != nil {
		return err
	}
	return quota.SetProject(holder, 0) // not when XFS gets to free the file
}

// emptied waits until the holder is all that is in a project.
func (m *projects) emptied(ctx context.Context, holder *os.File, id quota.Project) error {
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		q, err := quota.Get(holder, id)
		if err != nil || q.Inodes <= 1 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the bytes of project %d: %w", id, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// giveBack takes the limits of a project away that holds nothing. Between the
// look at it and that, another pool on the filesystem may have done the same
// and a third taken the number for a volume, whose limits must stay: so the
// number is held by a file without a name, which a cut leaves nothing of. If
// another has something in it, it is that one's, or the next sweep's.
func (m *projects) giveBack(id quota.Project) error {
	f, err := m.dir.OpenFile(layout.Tmp, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := quota.SetProject(f, id); err != nil {
		return err
	}
	q, err := quota.Get(f, id)
	if err == nil && q.Inodes == 1 {
		err = quota.SetLimits(f, id, quota.Limits{})
	}
	return errors.Join(err, quota.SetProject(f, 0)) // not when XFS gets to free the file
}

// sweep gives back the numbers of ours that have a limit and no file: what a
// cut in Free leaves.
func (m *projects) sweep() error {
	used, err := quota.InUse(m.dir.File(), firstProject, lastProject)
	if err != nil {
		return err
	}
	for id, q := range used {
		if q.Inodes == 0 && q.Bytes == 0 {
			if err := m.giveBack(id); err != nil {
				return err
			}
		}
	}
	return nil
}
