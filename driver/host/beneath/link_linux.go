package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// Symlink makes a symlink with the text target, which no method of Dir ever
// follows, and makes it durable. It never replaces: fs.ErrExist.
func (d *Dir) Symlink(target, name string) error {
	err := d.at("symlink", name, func(parent int, base string) error {
		return unix.Symlinkat(target, parent, base)
	})
	if err != nil {
		return err
	}
	return d.Sync(path.Dir(name))
}

// Readlink reads the text of a symlink; fs.ErrInvalid if name is something
// else.
func (d *Dir) Readlink(name string) (text string, err error) {
	err = d.at("readlink", name, func(parent int, base string) error {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(parent, base, buf)
		text = string(buf[:max(0, n)])
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("no symlink: %w", fs.ErrInvalid)
		}
		return err
	})
	return text, err
}

// Rmdir removes an empty directory; one that is not there is no error.
func (d *Dir) Rmdir(name string) error {
	err := d.at("rmdir", name, func(parent int, base string) error {
		return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
