package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The requests that stop all writing to a filesystem, and let it go on
// (linux/fs.h, _IOWR('X', 119, int) and 120).
const (
	fiFreeze = 0xC0045877 // FIFREEZE
	fiThaw   = 0xC0045878 // FITHAW
)

// ErrNotMountedHere says that no mount of a device is to be seen in this mount
// namespace.
var ErrNotMountedHere = errors.New("no mount of the device is in this mount namespace")

// WhileFrozen runs f while the filesystem on a device is frozen: everything
// written before is on the device, and nothing is written meanwhile. It is
// thawed whatever f does, also when f panics; only the end of the process is
// not helped against: see Thaw. EBUSY if somebody else has frozen it.
func WhileFrozen(major, minor int, f func() error) (err error) {
	dir, err := openRoot(major, minor)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	defer dir.Close()
	// Most of what there is to write is written before anybody has to wait.
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync the filesystem at %s: %w", dir.Name(), err)
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		return fmt.Errorf("freeze the filesystem at %s: %w", dir.Name(), err)
	}
	defer func() {
		// EINVAL: it is not frozen any more, so what f did was not done in peace.
		if thaw := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); thaw != nil {
			err = errors.Join(err, fmt.Errorf("thaw the filesystem at %s: %w", dir.Name(), thaw))
		}
	}()
	return f()
}

// Thaw lets the filesystem on a device go on after a process that ended while
// it was frozen; one that is not frozen, or not mounted, is no error.
func Thaw(major, minor int) error {
	dir, err := openRoot(major, minor)
	if errors.Is(err, ErrNotMountedHere) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	defer dir.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thaw the filesystem at %s: %w", dir.Name(), err)
	}
	return nil
}

// openRoot opens a directory on the filesystem of a device through any of its
// mounts that no other mount hides.
func openRoot(major, minor int) (*os.File, error) {
	mounts, err := OfDevice(major, minor)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		fd, err := unix.Open(m.Point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // a bind of a file, or hidden
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && int(unix.Major(st.Dev)) == major && int(unix.Minor(st.Dev)) == minor {
			return os.NewFile(uintptr(fd), m.Point), nil
		}
		_ = unix.Close(fd)
	}
	return nil, ErrNotMountedHere
}

// Once mounts the filesystem on a device nowhere and unmounts it at once, so
// that its log is replayed and clean. Nobody else can see the mount, and it
// ends with the process. Options are as the filesystem spells them, flags only.
func Once(device, fsType string, options ...string) error {
	if err := once(device, fsType, options); err != nil {
		return fmt.Errorf("replay the log of the %s on %s: %w", fsType, device, err)
	}
	return nil
}

func once(device, fsType string, options []string) error {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	err = unix.FsconfigSetString(fd, "source", device)
	for _, o := range options {
		if err == nil {
			err = unix.FsconfigSetFlag(fd, o)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fd)
	}
	return errors.Join(err, unix.Close(fd))
}
