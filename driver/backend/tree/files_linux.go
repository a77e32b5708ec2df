package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// OpenFiles gives the Files of a pool's open directory; closing them closes it.
func OpenFiles(dir *beneath.Dir) Files { return &files{dir} }

type files struct {
	dir *beneath.Dir
}

// Close implements Files.
func (m *files) Close() error { return m.dir.Close() }

// Path implements Files.
func (m *files) Path(name string) string { return filepath.Join(m.dir.Name(), name) }

// Rename implements Files.
func (m *files) Rename(from, to string) error { return m.dir.Rename(from, to) }

// SetRoot implements Files.
func (m *files) SetRoot(name string, r volume.Root) error {
	f, err := m.dir.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(layout.SetRoot(f, r), f.Close())
}

// InUse implements Files.
func (m *files) InUse(name string) ([]string, error) {
	of, err := mount.Of(m.Path(name))
	if err != nil {
		return nil, err
	}
	below, err := mount.AtOrBelow(m.Path(name))
	if err != nil {
		return nil, err
	}
	var where []string
	for _, x := range append(of, below...) {
		where = append(where, x.Point)
	}
	return where, nil
}

// Names implements Files.
func (m *files) Names(dir string) ([]string, error) {
	entries, err := m.dir.Entries(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Trims implements Files.
func (m *files) Trims() (bool, error) { return device.Trims(m.dir.File()) }

// Trim implements Files.
func (m *files) Trim() error { return device.Trim(m.dir.File()) }

// Space implements Files.
func (m *files) Space() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.dir.File().Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", m.dir.Name(), err)
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}

// Exchange implements Files.
func (m *files) Exchange(a, b string) error { return m.dir.Exchange(a, b) }

// Link implements Files.
func (m *files) Link(to, name string) error {
	err := m.dir.Symlink(m.Path(to), name)
	if text, readErr := m.dir.Readlink(name); errors.Is(err, fs.ErrExist) && readErr == nil && text == m.Path(to) {
		return nil
	}
	return err
}

// Unlink implements Files.
func (m *files) Unlink(to, name string) error {
	text, err := m.dir.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || err == nil && text != m.Path(to) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(m.dir.Remove(name), m.dir.Sync(path.Dir(name)))
}

// Directory implements Files.
func (m *files) Directory(name string) (inode uint64, err error) {
	st, err := m.dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, nil
	}
	return st.Ino, err
}
