package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Flags restrict what a mount allows, per mount, not per filesystem.
type Flags struct {
	ReadOnly, NoSuid, NoDev, NoExec, NoAtime bool
}

func (f Flags) attr() *unix.MountAttr {
	a := &unix.MountAttr{}
	for _, x := range []struct {
		on   bool
		attr uint64
	}{
		{f.ReadOnly, unix.MOUNT_ATTR_RDONLY}, {f.NoSuid, unix.MOUNT_ATTR_NOSUID},
		{f.NoDev, unix.MOUNT_ATTR_NODEV}, {f.NoExec, unix.MOUNT_ATTR_NOEXEC},
	} {
		if x.on {
			a.Attr_set |= x.attr
		}
	}
	if f.NoAtime {
		a.Attr_set |= unix.MOUNT_ATTR_NOATIME
		a.Attr_clr |= unix.MOUNT_ATTR__ATIME
	}
	return a
}

// Bind mounts what source has open, a directory or a file such as a device
// node, onto target, which exists and is of the same kind. The flags hold from
// the moment the mount appears: it is configured before it is attached. A
// target with a symlink in its path is refused with ErrSymlink.
func Bind(source *os.File, target string, flags Flags) error {
	if err := bind(source, target, flags); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source.Name(), target, err)
	}
	return nil
}

func bind(source *os.File, target string, flags Flags) error {
	p, err := openPlace(target, false)
	if err != nil {
		return err
	}
	defer p.dir.Close()
	on, _, err := p.target()
	if err != nil {
		return err
	}
	defer on.Close()
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	err = func() error {
		// The clone of a mount starts in its source's peer group; a volume's
		// mounts are nobody's business but the target's.
		private := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, private); err != nil {
			return fmt.Errorf("mount_setattr private: %w", err)
		}
		if attr := flags.attr(); attr.Attr_set != 0 {
			if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
				return fmt.Errorf("mount_setattr: %w", err)
			}
		}
		if err := unix.MoveMount(tree, "", int(on.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount: %w", err)
		}
		return nil
	}()
	return errors.Join(err, unix.Close(tree))
}

// BindPath is Bind of a path; one with a symlink in it is refused with
// ErrSymlink.
func BindPath(source, target string, flags Flags) error {
	fd, err := open(unix.AT_FDCWD, source, 0)
	if err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	f := os.NewFile(uintptr(fd), source)
	defer f.Close()
	return Bind(f, target, flags)
}

// RemountReadOnly makes one mount read-only, leaving others of the same
// filesystem as they are.
func RemountReadOnly(target string) error { return SetFlags(target, Flags{ReadOnly: true}) }

// SetFlags adds restrictions to the mount at target; it takes none away.
func SetFlags(target string, flags Flags) error {
	attr := flags.attr()
	if attr.Attr_set == 0 {
		return nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, attr); err != nil {
		return fmt.Errorf("set flags of the mount at %s: %w", target, err)
	}
	return nil
}

// How long Unmount waits for a file that is about to be closed. A child that
// this process is forking holds all its descriptors until it becomes another
// program, so a file closed here may be open for a moment still.
const (
	unmountWait = 200 * time.Millisecond
	unmountPoll = 5 * time.Millisecond
)

// Unmount takes the topmost mount off target; one that has none is no error.
// EBUSY while something has a file of it open.
func Unmount(target string) error {
	mounted, err := IsMounted(target)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	if !mounted {
		return nil
	}
	p, err := openPlace(filepath.Clean(target), false)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	defer p.dir.Close()
	for end := time.Now().Add(unmountWait); ; <-time.After(unmountPoll) {
		err := unix.Unmount(filepath.Join(procPath(p.dir), p.name), unix.UMOUNT_NOFOLLOW)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}
