package beneath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Walk opens every directory and regular file below name, but not name itself,
// and gives it to visit, a directory before what is in it. Symlinks and special
// files are passed over, mounts are ErrMount. What goes away meanwhile is no
// error; what is made in a directory after that was visited may be missed.
func (d *Dir) Walk(ctx context.Context, name string, visit func(f *os.File) error) error {
	for pending := []string{name}; len(pending) > 0; {
		dir := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		f, err := d.openDeep(dir)
		if gone(err) && dir != name {
			continue
		}
		if err != nil {
			return err
		}
		err = eachName(ctx, int(f.Fd()), func(base string) error {
			below, err := visitEntry(f, base, visit)
			if below {
				pending = append(pending, dir+"/"+base)
			}
			return err
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("walk %s: %w", filepath.Join(d.Name(), dir), err)
		}
	}
	return nil
}

// visitEntry visits one name of an open directory, and reports whether it is a
// directory itself.
func visitEntry(dir *os.File, base string, visit func(f *os.File) error) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
		return false, ignoreAbsent(base, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return false, nil
	}
	fd, err := openat2(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%q: %w", base, err)
	}
	f := os.NewFile(uintptr(fd), path.Join(dir.Name(), base))
	return kind == unix.S_IFDIR, errors.Join(visit(f), f.Close())
}

// Exchange makes two names below d change places at one instant, and makes
// that durable. Both are there, else fs.ErrNotExist.
func (d *Dir) Exchange(a, b string) error {
	err := d.at("exchange", a, func(aParent int, aBase string) error {
		return d.at("exchange with", b, func(bParent int, bBase string) error {
			return unix.Renameat2(aParent, aBase, bParent, bBase, unix.RENAME_EXCHANGE)
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(path.Dir(b)), d.Sync(path.Dir(a)))
}
