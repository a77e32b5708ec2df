// Package beneath works inside one directory and never leaves it. Every path
// is resolved by openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS,
// RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV: not through "..", not through a
// symlink, not into another mount. os.Root stops the first two only.
package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Paths given to its methods are relative to it and
// use slashes. It may be used by several goroutines.
type Dir struct {
	f    *os.File
	slow sync.Mutex // held by whoever removes much
}

// resolve is how every path is looked up.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// ErrMount says that a path leads into another mount, or that one is in the
// way of a removal.
var ErrMount = errors.New("a mount is in the way")

// Open opens a directory by its path, which is resolved as usual.
func Open(name string) (*Dir, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), name)}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.f.Close() }

// Name is the path that the directory was opened by.
func (d *Dir) Name() string { return d.f.Name() }

// File is the open directory, for requests by descriptor. It stays d's.
func (d *Dir) File() *os.File { return d.f }

// OpenFile opens a file or directory below d with flags as in open(2); perm
// is for files that it makes. O_NONBLOCK is added, so that a fifo in the
// place of a file cannot hang the caller.
func (d *Dir) OpenFile(name string, flags int, perm fs.FileMode) (*os.File, error) {
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK
	}
	fd, err := openat2(int(d.f.Fd()), name, flags, perm)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.Name(), name)), nil
}

// OpenDir opens a directory below d.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{f: f}, nil
}

func openat2(dirfd int, name string, flags int, perm fs.FileMode) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(dirfd, name, how)
		// EAGAIN: something was renamed while the path was walked (openat2(2)).
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if errors.Is(err, unix.EXDEV) {
			err = fmt.Errorf("%w: %w", ErrMount, err)
		}
		return fd, err
	}
}

// at runs op with the open parent directory of name and its last element.
func (d *Dir) at(what, name string, op func(parent int, base string) error) error {
	base := path.Base(name)
	err := unix.EINVAL
	if base == "." || base == ".." || base == "/" {
		return &fs.PathError{Op: what, Path: filepath.Join(d.Name(), name), Err: err}
	}
	parent, e := d.OpenFile(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if e != nil {
		return e
	}
	defer parent.Close()
	if err := op(int(parent.Fd()), base); err != nil {
		return &fs.PathError{Op: what, Path: filepath.Join(d.Name(), name), Err: err}
	}
	return nil
}

// Lstat reads what name is, without following it.
func (d *Dir) Lstat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := d.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return st, err
	}
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st, nil
}

// Mkdir makes a directory with exactly these permissions, whatever the umask.
// One that is there already is no error and stays as it is; anything else of
// that name is fs.ErrExist.
func (d *Dir) Mkdir(name string, perm fs.FileMode) error {
	err := d.at("mkdir", name, func(parent int, base string) error {
		return unix.Mkdirat(parent, base, uint32(perm.Perm()))
	})
	if errors.Is(err, fs.ErrExist) {
		if sub, e := d.OpenDir(name); e == nil {
			return sub.Close()
		}
	}
	if err != nil {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(sub.f.Chmod(perm), sub.Close())
}

// Rename moves from to to, both below d, and makes that durable. It never
// replaces: fs.ErrExist if to is there. Immutable and append-only flags of from
// are cleared if they are in the way.
func (d *Dir) Rename(from, to string) error {
	if err := d.Move(from, to); err != nil {
		return err
	}
	// The new name first: between the two a cut shows both or the old one.
	return errors.Join(d.Sync(path.Dir(to)), d.Sync(path.Dir(from)))
}

// Move is Rename that is durable only when the caller has made it so.
func (d *Dir) Move(from, to string) error {
	return d.at("rename", from, func(fromParent int, fromBase string) error {
		return d.at("rename to", to, func(toParent int, toBase string) error {
			rename := func() error {
				return unix.Renameat2(fromParent, fromBase, toParent, toBase, unix.RENAME_NOREPLACE)
			}
			err := rename()
			if errors.Is(err, unix.EPERM) && clearFlagsOf(fromParent, fromBase) {
				err = rename()
			}
			return err
		})
	})
}

// Remove removes a file, or whatever is not a directory. One that is not
// there is no error.
func (d *Dir) Remove(name string) error {
	err := d.at("unlink", name, func(parent int, base string) error { return unix.Unlinkat(parent, base, 0) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sync makes the names in a directory below d durable (fsync(2)).
func (d *Dir) Sync(name string) error {
	f, err := d.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Entries lists a directory below d, in no order.
func (d *Dir) Entries(name string) ([]fs.DirEntry, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	return entries, errors.Join(err, f.Close())
}
