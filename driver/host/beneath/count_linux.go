package beneath

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Count walks the tree at name and counts the bytes that its files hold on
// disk and its inodes, each once however many links it has. Mounts below are
// not entered. What goes away meanwhile is not counted.
func (d *Dir) Count(ctx context.Context, name string) (bytes, inodes int64, err error) {
	type inode struct{ dev, ino uint64 }
	linked := map[inode]bool{}
	count := func(st *unix.Stat_t) {
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			key := inode{st.Dev, st.Ino}
			if linked[key] {
				return
			}
			linked[key] = true
		}
		bytes += st.Blocks * 512
		inodes++
	}
	st, err := d.Lstat(name)
	if err != nil {
		return 0, 0, err
	}
	count(&st)
	for pending := []string{name}; len(pending) > 0; {
		dir := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		f, err := d.openDeep(dir)
		if gone(err) || errors.Is(err, ErrMount) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		err = eachName(ctx, int(f.Fd()), func(base string) error {
			var st unix.Stat_t
			if err := unix.Fstatat(int(f.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
				return ignoreAbsent(base, err)
			}
			count(&st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				pending = append(pending, dir+"/"+base)
			}
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil && !gone(err) {
			return 0, 0, err
		}
	}
	return bytes, inodes, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// longest is how much of a path openat2 is given at a time; PATH_MAX is 4096.
const longest = 2048

// openDeep opens a directory whose path may be longer than PATH_MAX.
func (d *Dir) openDeep(name string) (*os.File, error) {
	at, rest := d, name
	for len(rest) > longest {
		cut := strings.LastIndexByte(rest[:longest], '/')
		f, err := at.OpenFile(rest[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if at != d {
			err = errors.Join(err, at.Close())
		}
		if err != nil {
			return nil, err
		}
		at, rest = &Dir{f: f}, rest[cut+1:]
	}
	f, err := at.OpenFile(path.Clean(rest), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if at != d {
		err = errors.Join(err, at.Close())
	}
	return f, err
}
