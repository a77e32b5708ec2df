// Package mount makes, undoes and finds mounts. It issues the system calls
// itself: binds go by file descriptor (open_tree(2), move_mount(2)), so that
// what was checked is what is mounted, and what is mounted is read from
// /proc/self/mountinfo, which, unlike a comparison of device numbers, sees
// binds within one filesystem.
package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Mount is one mount of this process's mount namespace
// (proc_pid_mountinfo(5)).
type Mount struct {
	ID           int
	Major, Minor int    // of the filesystem's device; btrfs has a number of its own
	Root         string // the directory of the filesystem that is mounted: "/" or, for a bind, below
	Point        string // where it is mounted
	FSType       string
	Source       string   // the device for a filesystem on one
	Options      []string // of the mount: ro, nosuid, …
	SuperOptions []string // of the filesystem: prjquota, …
}

// ReadOnly reports whether the mount itself is read-only.
func (m Mount) ReadOnly() bool { return has(m.Options, "ro") }

// HasSuperOption reports whether the filesystem is mounted with an option.
func (m Mount) HasSuperOption(option string) bool { return has(m.SuperOptions, option) }

func has(options []string, option string) bool {
	for _, o := range options {
		if o == option {
			return true
		}
	}
	return false
}

// List reads all mounts, in the order they were made.
func List() ([]Mount, error) { return list(nil) }

func list(filter mountinfo.FilterFunc) ([]Mount, error) {
	infos, err := mountinfo.GetMounts(filter)
	if err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return mounts(infos), nil
}

func mounts(infos []*mountinfo.Info) []Mount {
	out := make([]Mount, 0, len(infos))
	for _, i := range infos {
		out = append(out, Mount{
			ID: i.ID, Major: i.Major, Minor: i.Minor, Root: i.Root, Point: i.Mountpoint,
			FSType: i.FSType, Source: i.Source,
			Options: strings.Split(i.Options, ","), SuperOptions: strings.Split(i.VFSOptions, ","),
		})
	}
	return out
}

// At lists the mounts on exactly this path, the topmost last. path is
// absolute and clean; symlinks in it are resolved, except in its last element.
func At(path string) ([]Mount, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	return list(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
}

// IsMounted reports whether path is a mount point. A path that does not exist
// is not.
func IsMounted(path string) (bool, error) {
	mounts, err := At(path)
	return len(mounts) > 0, err
}

// AtOrBelow lists the mounts on path and on anything below it.
func AtOrBelow(path string) ([]Mount, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	return list(func(i *mountinfo.Info) (skip, stop bool) { return !within(i.Mountpoint, path), false })
}

// Of lists the mounts, anywhere, of the directory or file at path or of
// anything below it: the binds that show it elsewhere. The mount through which
// path itself is reached does not count.
func Of(path string) ([]Mount, error) {
	holder, err := Containing(path)
	if err != nil {
		return nil, err
	}
	resolved, err := resolve(path)
	if err != nil {
		return nil, err
	}
	below, err := filepath.Rel(holder.Point, resolved)
	if err != nil {
		return nil, fmt.Errorf("mounts of %s: %w", path, err)
	}
	root := filepath.Join(holder.Root, below)
	return list(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Major != holder.Major || i.Minor != holder.Minor || !within(i.Root, root) ||
			i.ID == holder.ID, false
	})
}

// OfDevice lists the mounts of the filesystem on a device, by its number.
func OfDevice(major, minor int) ([]Mount, error) {
	return list(func(i *mountinfo.Info) (skip, stop bool) { return i.Major != major || i.Minor != minor, false })
}

// Containing finds the mount that path lies on: the topmost one at the nearest
// mount point at or above it.
func Containing(path string) (Mount, error) {
	path, err := resolve(path)
	if err != nil {
		return Mount{}, err
	}
	mounts, err := list(func(i *mountinfo.Info) (skip, stop bool) { return !within(path, i.Mountpoint), false })
	if err != nil {
		return Mount{}, err
	}
	var best Mount
	for _, m := range mounts {
		if len(m.Point) >= len(best.Point) { // of two at one place the later is on top
			best = m
		}
	}
	if best.Point == "" {
		return Mount{}, fmt.Errorf("%s is on no mount of this namespace", path)
	}
	return best, nil
}

// Pool is what a pool's identity guard wants to know about its path.
type Pool struct {
	Mount
	IsMountPoint bool // the path itself is one, not only something above it
}

// PoolMount reads the mount that a pool's path lies on.
func PoolMount(path string) (Pool, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Pool{}, fmt.Errorf("pool path: %w", err)
	}
	m, err := Containing(resolved)
	if err != nil {
		return Pool{}, err
	}
	return Pool{Mount: m, IsMountPoint: m.Point == resolved}, nil
}

// resolve gives the path as mountinfo spells it. The last element is left as
// it is: mounts are made on what a name is, not on what a link says.
func resolve(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("mount path %q is not absolute", path)
	}
	path = filepath.Clean(path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if os.IsNotExist(err) {
		return path, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
