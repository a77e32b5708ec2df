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

	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
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
	return tree.Dir{Limit: q.MaxBytes, Exclusive: q.Bytes}, err
}

// Usage is the quota report. Without a limit on inodes, what is left of them
// is the filesystem's.
func (m *projects) Usage(ctx context.Context, name string) (volume.Usage, error) {
	q, err := m.quota(name)
	if err != nil {
		return volume.Usage{}, err
	}
	u := volume.Usage{TotalBytes: q.MaxBytes, UsedBytes: q.Bytes, AvailableBytes: max(0, q.MaxBytes-q.Bytes),
		TotalInodes: q.MaxInodes, UsedInodes: q.Inodes, AvailableInodes: max(0, q.MaxInodes-q.Inodes)}
	if q.MaxInodes == 0 {
		free, err := m.freeInodes()
		if err != nil {
			return volume.Usage{}, err
		}
		u.TotalInodes, u.AvailableInodes = q.Inodes+free, free
	}
	return u, nil
}

// Make implements tree.Keeper.
func (m *projects) Make(name string, limit int64) error {
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
	if err := quota.SetLimits(f, id, limit, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Limit implements tree.Keeper.
func (m *projects) Limit(name string, limit int64) error {
	f, id, err := m.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	q, err := quota.Get(f, id)
	if err != nil {
		return err
	}
	return quota.SetLimits(f, id, limit, q.MaxInodes)
}

// attempts bounds the races of allocate.
const attempts = 100

// allocate puts an empty directory into a project that nobody uses: no file
// is in it and no limit is on it. Whether another did the same at the same time
// is told by the count of inodes, which must be one; then both try others.
func (m *projects) allocate(dir *os.File) (quota.Project, error) {
	m.allocating.Lock()
	defer m.allocating.Unlock()
	used, err := quota.InUse(dir, firstProject, lastProject)
	if err != nil {
		return 0, err
	}
	id := firstProject
	for range attempts {
		for used[id].Used() {
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
		if q.Inodes == 1 && q.MaxBytes == 0 {
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

// Free removes the tree, waits until the project holds nothing, and takes its
// limit away, which gives the number back.
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
	if err := errors.Join(f.Close(), m.plain.Free(ctx, name)); err != nil {
		return err
	}
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		q, err := quota.Get(m.dir.File(), id)
		if err != nil {
			return err
		}
		if q.Inodes == 0 {
			return quota.SetLimits(m.dir.File(), id, 0, 0)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the bytes of project %d: %w", id, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// sweep gives back the numbers of ours that have a limit and no file: what a
// cut in Free leaves. A number is given a file before a limit, so this takes
// none from a volume that is being made in another pool.
func (m *projects) sweep() error {
	used, err := quota.InUse(m.dir.File(), firstProject, lastProject)
	if err != nil {
		return err
	}
	for id, q := range used {
		if q.Inodes == 0 && q.Bytes == 0 {
			if err := quota.SetLimits(m.dir.File(), id, 0, 0); err != nil {
				return err
			}
		}
	}
	return nil
}
