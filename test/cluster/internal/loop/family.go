package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DetachAll frees the loop devices of files, and first those whose own file
// lies in a filesystem on one of them, at any depth: a volume image in a pool
// keeps the pool's filesystem in use after its mount is gone.
func DetachAll(ctx context.Context, files []string) error {
	family, err := Family(files)
	if err != nil {
		return err
	}
	return DetachFamily(ctx, family)
}

// DetachFamily frees what Family found, the youngest first.
func DetachFamily(ctx context.Context, family []Device) error {
	var errs []error
	for _, d := range slices.Backward(family) {
		errs = append(errs, Detach(ctx, d))
	}
	return errors.Join(errs...)
}

// Family returns the loop devices of files and, after them, all devices that
// stand on these.
func Family(files []string) ([]Device, error) {
	own := map[ID]bool{}
	for _, f := range files {
		id, err := IDOf(f)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		own[id] = true
	}
	rest, err := List()
	if err != nil {
		return nil, err
	}
	var family []Device
	rest = slices.DeleteFunc(rest, func(d Device) bool {
		if own[d.Backing] {
			family = append(family, d)
		}
		return own[d.Backing]
	})
	// family grows while it is walked: generation after generation.
	for i := 0; i < len(family); i++ {
		var on []Device
		on, rest = standingOn(family[i], rest)
		family = append(family, on...)
	}
	return family, nil
}

// FilesBelow returns the files below dir, on its own filesystem, that are
// behind a loop device and not among known: images that a program in the
// machine whose root is dir has made there.
func FilesBelow(dir string, known []string) ([]string, error) {
	home, err := IDOf(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	devices, err := List()
	if err != nil {
		return nil, err
	}
	wanted := map[ID]bool{}
	for _, d := range devices {
		wanted[d.Backing] = d.Backing.Dev == home.Dev
	}
	for _, f := range known {
		if id, err := IDOf(f); err == nil {
			delete(wanted, id)
		}
	}
	if !slices.Contains(slices.Collect(maps.Values(wanted)), true) {
		return nil, nil // the usual case, which needs no walk
	}
	var files []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		id, err := IDOf(path)
		if err == nil && wanted[id] {
			files = append(files, path)
		}
		return nil //nolint:nilerr // removed meanwhile
	})
	return files, err
}

// standingOn splits devices into those whose file lies in the filesystem on
// base, and the others.
func standingOn(base Device, devices []Device) (on, others []Device) {
	for _, d := range devices {
		if d.Backing.Dev == base.Rdev {
			on = append(on, d)
		} else {
			others = append(others, d)
		}
	}
	if len(others) == 0 {
		return on, nil
	}
	// btrfs gives each subvolume a device number of its own, so its files
	// have to be looked at.
	root, err := openBtrfs(base.Path)
	if err != nil {
		return on, others
	}
	defer unix.Close(root) //nolint:errcheck // read only
	unsure := others
	others = nil
	for _, d := range unsure {
		if within(root, d) {
			on = append(on, d)
		} else {
			others = append(others, d)
		}
	}
	return on, others
}

// openBtrfs mounts the btrfs on device where no namespace sees it; the mount
// ends when the returned file is closed. It is the filesystem that other mounts
// of the device share, so device numbers of subvolumes agree.
func openBtrfs(device string) (int, error) {
	ctx, err := unix.Fsopen("btrfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx) //nolint:errcheck // a handle on a configuration
	if err := unix.FsconfigSetString(ctx, "source", device); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	root, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", device, err)
	}
	return root, nil
}

// within looks for the file behind d below root. The kernel reports its path as
// seen from some mount of the filesystem, so every tail of it is tried.
func within(root int, d Device) bool {
	path := strings.TrimSuffix(d.File, " (deleted)")
	for tail := strings.TrimPrefix(filepath.Clean(path), "/"); tail != ""; {
		var st unix.Stat_t
		err := unix.Fstatat(root, tail, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && (ID{Dev: st.Dev, Inode: st.Ino}) == d.Backing {
			return true
		}
		_, rest, ok := strings.Cut(tail, "/")
		if !ok {
			return false
		}
		tail = rest
	}
	return false
}
