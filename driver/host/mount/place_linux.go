package mount

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// What can be wrong with a place for a mount.
var (
	// ErrSymlink: the path goes through a symlink, or is one.
	ErrSymlink = errors.New("a symlink is in the path; name what it points to")
	// ErrOccupied: something is there that a mount would hide.
	ErrOccupied = errors.New("something is in its place")
)

// place is a name in an open directory: where a mount is or is to be. No part
// of its path is a symlink, and what is done there goes by the descriptor: who
// puts a symlink in the place of one of the directories is refused, and who
// does it later moves nothing.
type place struct {
	dir  *os.File // O_PATH
	name string
	path string
}

// open opens a path that has no symlink in it (openat2(2)).
func open(dir int, path string, flags int) (int, error) {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_PATH | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: %w", ErrSymlink, err)
	}
	return fd, err
}

// openPlace opens the directory that path lies in, which is made, with those
// above it, if that is asked.
func openPlace(path string, makeParents bool) (*place, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return nil, fmt.Errorf("%.200q is not an absolute, clean path of something below /", path)
	}
	dir, err := openDir(filepath.Dir(path), makeParents)
	if err != nil {
		return nil, err
	}
	return &place{dir: dir, name: filepath.Base(path), path: path}, nil
}

func openDir(path string, makeIt bool) (*os.File, error) {
	fd, err := open(unix.AT_FDCWD, path, unix.O_DIRECTORY)
	if err == nil {
		return os.NewFile(uintptr(fd), path), nil
	}
	if !makeIt || !errors.Is(err, unix.ENOENT) || path == "/" {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	above, err := openDir(filepath.Dir(path), true)
	if err != nil {
		return nil, err
	}
	defer above.Close()
	err = unix.Mkdirat(int(above.Fd()), filepath.Base(path), 0o750)
	if err == nil || errors.Is(err, unix.EEXIST) {
		fd, err = open(int(above.Fd()), filepath.Base(path), unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "make", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// target opens what is at the place: the top of a mount, if there is one.
func (p *place) target() (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := open(int(p.dir.Fd()), p.name, 0)
	if err != nil {
		return nil, st, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), p.path)
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, errors.Join(&fs.PathError{Op: "stat", Path: p.path, Err: err}, f.Close())
	}
	return f, st, nil
}

// MakeDir makes a directory, and those above it, for a filesystem or a
// directory to be mounted on. One that is there is no error; ErrOccupied if
// something else is.
func MakeDir(path string) error {
	return makePlace(path, unix.S_IFDIR, func(p *place) error { return unix.Mkdirat(int(p.dir.Fd()), p.name, 0o750) })
}

// MakeFile makes an empty file, and the directories above it, for a device
// node to be mounted on. A file or device that is there is no error;
// ErrOccupied if something else is.
func MakeFile(path string) error {
	return makePlace(path, unix.S_IFREG, func(p *place) error {
		fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func makePlace(path string, kind uint32, do func(*place) error) error {
	p, err := openPlace(path, true)
	if err != nil {
		return fmt.Errorf("make a place for a mount: %w", err)
	}
	defer p.dir.Close()
	if err := do(p); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make a place for a mount: %w", &fs.PathError{Op: "make", Path: path, Err: err})
	}
	f, st, err := p.target()
	if err != nil {
		return fmt.Errorf("make a place for a mount: %w", err)
	}
	defer f.Close()
	if is := st.Mode & unix.S_IFMT; is != kind && (kind == unix.S_IFDIR || is != unix.S_IFBLK) {
		return fmt.Errorf("make a place for a mount: %w: %s is a %s", ErrOccupied, path, kindName(is))
	}
	return nil
}

func kindName(mode uint32) string {
	switch mode {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFBLK, unix.S_IFCHR:
		return "device"
	}
	return "special file"
}

// Vacant returns ErrOccupied unless path is an empty directory or an empty
// file: nothing is lost from sight when it is mounted over, and nothing for
// good when it is removed.
func Vacant(path string) error {
	p, err := openPlace(path, false)
	if err != nil {
		return err
	}
	defer p.dir.Close()
	return p.vacant()
}

func (p *place) vacant() error {
	f, st, err := p.target()
	if err != nil {
		return err
	}
	defer f.Close()
	switch is := st.Mode & unix.S_IFMT; {
	case is == unix.S_IFREG && st.Size == 0:
		return nil
	case is != unix.S_IFDIR:
		return fmt.Errorf("%w: %s is a %s of %d bytes", ErrOccupied, p.path, kindName(is), st.Size)
	}
	// The descriptor cannot be read; "." of it can.
	fd, err := unix.Openat(int(f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), p.path)
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		return fmt.Errorf("%w: the directory %s is not empty, it has %.60q", ErrOccupied, p.path, names[0])
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Remove removes what MakeDir or MakeFile made. What is not there is no error,
// and what is not vacant is not removed: ErrOccupied.
func Remove(path string) error {
	if err := remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the place of a mount: %w", err)
	}
	return nil
}

func remove(path string) error {
	p, err := openPlace(path, false)
	if err != nil {
		return err
	}
	defer p.dir.Close()
	if err := p.vacant(); err != nil {
		return err
	}
	err = unix.Unlinkat(int(p.dir.Fd()), p.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.Unlinkat(int(p.dir.Fd()), p.name, 0)
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// procPath is a path for calls that take no descriptor. It leads to what f has
// open, whatever has become of its name (proc_pid_fd(5)).
func procPath(f *os.File) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd())))
}
