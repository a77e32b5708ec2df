package mount

import (
	"errors"
	"fmt"
	"os"
	"sync"

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

// Mounted is a filesystem that is mounted somewhere, to be frozen once. Its
// methods may be called at the same time.
type Mounted struct {
	dir *os.File

	mu     sync.Mutex
	frozen bool
	over   bool // it has been thawed, or is not to be frozen any more
}

// Reach finds the filesystem on a device through any of its mounts, and writes
// most of what there is to write, before anybody has to wait for that.
// ErrNotMountedHere if it is not to be found.
func Reach(major, minor int) (*Mounted, error) {
	dir, err := openRoot(major, minor)
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("sync the filesystem at %s: %w", dir.Name(), err), dir.Close())
	}
	return &Mounted{dir: dir}, nil
}

// Freeze stops all writing to the filesystem: everything written before is on
// the device, and nothing is written until Thaw. The end of the process does
// not thaw it: see Thaw, the function. EBUSY if somebody else has frozen it.
func (m *Mounted) Freeze() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return fmt.Errorf("freeze the filesystem at %s: it is to go on by now", m.dir.Name())
	}
	if err := unix.IoctlSetInt(int(m.dir.Fd()), fiFreeze, 0); err != nil {
		return fmt.Errorf("freeze the filesystem at %s: %w", m.dir.Name(), err)
	}
	m.frozen = true
	return nil
}

// Thaw lets writing go on, after a Freeze under way. EINVAL if it is not
// frozen any more, so what was done meanwhile was not done in peace.
func (m *Mounted) Thaw() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if !m.frozen {
		return nil
	}
	m.frozen = false
	if err := unix.IoctlSetInt(int(m.dir.Fd()), fiThaw, 0); err != nil {
		return fmt.Errorf("thaw the filesystem at %s: %w", m.dir.Name(), err)
	}
	return nil
}

// Close thaws it and lets go of it.
func (m *Mounted) Close() error { return errors.Join(m.Thaw(), m.dir.Close()) }

// WhileFrozen runs f while the filesystem on a device is frozen. It is thawed
// whatever f does, also when f panics.
func WhileFrozen(major, minor int, f func() error) (err error) {
	m, err := Reach(major, minor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Freeze(); err != nil {
		return err
	}
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
