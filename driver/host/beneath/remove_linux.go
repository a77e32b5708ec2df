package beneath

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"golang.org/x/sys/unix"
)

// Sizes of a removal: names read at a time, and the size in bytes from which
// a file is cut to nothing before it is unlinked. XFS frees an unlinked file
// in the background, a truncated one at once.
const (
	batch         = 1024
	truncateAbove = 1 << 20
)

// What a removal may take of a disk that others use. The first names go at
// once; from then on the trees that are removed below one Dir take turns, a
// stretch each, and after a stretch all rest for as long as it has lasted.
const (
	atOnce  = 4096
	stretch = 50 * time.Millisecond
)

// pace is how fast one tree is removed.
type pace struct {
	ctx     context.Context
	turn    *sync.Mutex
	removed int       // names so far
	began   time.Time // of this stretch; zero while it is not our turn
}

// step is called for each name before it is removed.
func (p *pace) step() error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	p.removed++
	switch now := time.Now(); {
	case p.removed <= atOnce:
	case p.began.IsZero():
		p.turn.Lock()
		p.began = time.Now()
	case now.Sub(p.began) > stretch:
		rest := time.NewTimer(now.Sub(p.began))
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-p.ctx.Done():
		}
		p.end()
	}
	return p.ctx.Err()
}

// end lets others have their turn.
func (p *pace) end() {
	if !p.began.IsZero() {
		p.began = time.Time{}
		p.turn.Unlock()
	}
}

// RemoveTree removes the directory name and everything in it; one that is not
// there is no error. It refuses with ErrMount, before anything is removed,
// while anything is mounted at or below it. Immutable and append-only flags
// are cleared. Whatever the depth, it holds a handful of descriptors: a
// directory that is not empty is first moved up to the top of the tree. It may be called
// again after a cut, and ends early with the context. A large tree is removed at
// the pace of atOnce and stretch.
func (d *Dir) RemoveTree(ctx context.Context, name string) error {
	top, err := d.OpenDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer top.Close()
	if err := refuseMounts(top.f); err != nil {
		return err
	}
	clearFlags(int(top.f.Fd()), immutableFlag|appendFlag|projInherit)
	p := &pace{ctx: ctx, turn: &d.slow}
	defer p.end()
	if err := removeContents(p, int(top.f.Fd())); err != nil {
		return fmt.Errorf("remove the tree %s: %w", filepath.Join(d.Name(), name), err)
	}
	return d.at("rmdir", name, func(parent int, base string) error {
		return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
	})
}

// refuseMounts asks mountinfo, which sees what a walk would run into later.
func refuseMounts(dir *os.File) error {
	// The kernel's own path of the directory, as mountinfo spells it.
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	mounts, err := mount.AtOrBelow(p)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove the tree %s: %w: %s", p, ErrMount, mounts[0].Point)
	}
	return nil
}

// removeContents empties the directory top, pass by pass, until one finds
// nothing.
func removeContents(p *pace, top int) error {
	for {
		found := false
		err := eachName(p.ctx, top, func(name string) error {
			found = true
			return removeEntry(p, top, top, name)
		})
		if err != nil || !found {
			return err
		}
	}
}

// eachName reads a directory afresh and calls f with every name in it.
func eachName(ctx context.Context, dirfd int, f func(name string) error) error {
	fd, err := openat2(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(batch)
		for _, n := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f(n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// removeEntry removes one name of the directory parent. A directory's own
// directories are moved to top, where the next pass meets them.
func removeEntry(p *pace, top, parent int, name string) error {
	if err := p.step(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreAbsent(name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && st.Size > truncateAbove {
			truncate(parent, name)
		}
		return ignoreAbsent(name, unflagged(parent, name, func() error { return unix.Unlinkat(parent, name, 0) }))
	}
	rmdir := func() error { return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR) }
	if err := rmdir(); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if parent != top {
		return ignoreAbsent(name, unflagged(parent, name, func() error { return hoist(parent, name, top) }))
	}
	dirfd, err := openat2(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return ignoreAbsent(name, err)
	}
	defer unix.Close(dirfd)
	err = eachName(p.ctx, dirfd, func(below string) error { return removeEntry(p, top, dirfd, below) })
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if err := unflagged(parent, name, rmdir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil // of a very large one, readdir may have missed names: the next pass
}

// hoist moves a directory to the top under a name that nobody has.
func hoist(parent int, name string, top int) error {
	return unix.Renameat2(parent, name, top, ".plinth-"+rand.Text(), unix.RENAME_NOREPLACE)
}

// truncate is an attempt: unlinking frees the bytes too, only later.
func truncate(parent int, name string) {
	fd, err := openat2(parent, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	_ = unix.Ftruncate(fd, 0)
	_ = unix.Close(fd)
}

func ignoreAbsent(name string, err error) error {
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("%q: %w", name, err)
}

// unflagged tries op, and after EPERM again with the flags cleared that make
// an inode, or the directory that names it, unchangeable.
func unflagged(parent int, name string, op func() error) error {
	err := op()
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	clearFlagsOf(parent, ".")
	clearFlagsOf(parent, name)
	return op()
}
