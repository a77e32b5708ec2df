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

// RemoveTree removes the directory name and everything in it; one that is not
// there is no error. It refuses with ErrMount, before anything is removed,
// while anything is mounted at or below it. Immutable and append-only flags
// are cleared. Whatever the depth, it holds a handful of descriptors: a
// directory that is not empty is first moved up to the top of the tree. It may be called
// again after a cut, and ends early with the context.
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
	if err := removeContents(ctx, int(top.f.Fd())); err != nil {
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
func removeContents(ctx context.Context, top int) error {
	for {
		found := false
		err := eachName(ctx, top, func(name string) error {
			found = true
			return removeEntry(ctx, top, top, name)
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
func removeEntry(ctx context.Context, top, parent int, name string) error {
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
	err = eachName(ctx, dirfd, func(below string) error { return removeEntry(ctx, top, dirfd, below) })
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
