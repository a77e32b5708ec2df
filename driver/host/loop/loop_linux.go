// Package loop attaches files to loop devices. A device is found again by the
// device and inode of the file behind it, never by a path: loop devices are
// global to the machine, paths are of one mount namespace.
// The requests are those of loop(4) and linux/loop.h.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of a loop device (linux/loop.h).
const (
	flagReadOnly  = 1 // LO_FLAGS_READ_ONLY
	flagAutoclear = 4 // LO_FLAGS_AUTOCLEAR
	flagDirectIO  = 16
)

// attempts bounds the races for a free device with others on the machine.
const attempts = 256

// major is the device number of loop devices (Documentation/admin-guide/devices.txt).
const major = 7

// ErrInUse says that a device is mounted or open elsewhere.
var ErrInUse = errors.New("loop device in use")

// Device is a loop device with a file behind it.
type Device struct {
	Path      string // /dev/loopN
	FileDev   uint64 // st_dev and st_ino of the file, as the kernel tells them
	FileInode uint64
	DirectIO  bool
	flags     uint32
}

// Attach gives the device of the file, making one if it has none. The device
// has direct I/O and sectors of 512 bytes, or of 4096 where the disk below the
// file asks for that; where the filesystem cannot do direct I/O at all, it goes
// without (Device.DirectIO). The device stays until Detach, whoever closes it.
// The file must be open for reading and writing.
func Attach(file *os.File) (Device, error) {
	return attachWith(file, []way{{512, flagDirectIO}, {4096, flagDirectIO}, {512, 0}})
}

// AttachSectors is Attach with sectors of this many bytes, for what was written
// to a device that had them (a partition table counts in them): where direct
// I/O does not go with them, as it does not go with 512 bytes on a file that
// shares bytes with another (XFS), the device does without it.
func AttachSectors(file *os.File, sector uint32) (Device, error) {
	return attachWith(file, []way{{sector, flagDirectIO}, {sector, 0}})
}

// way is a sector size in bytes and the flags that it is tried with.
type way struct{ sector, flags uint32 }

func attachWith(file *os.File, ways []way) (Device, error) {
	d, err := attach(file, ways)
	if err != nil {
		return Device{}, fmt.Errorf("attach %s to a loop device: %w", file.Name(), err)
	}
	return d, nil
}

func attach(file *os.File, ways []way) (Device, error) {
	d, found, err := Find(file)
	if err != nil {
		return Device{}, err
	}
	if found {
		return d, keep(d)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return Device{}, fmt.Errorf("%w (the host's /dev is needed)", err)
	}
	defer control.Close()
	for range attempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Device{}, fmt.Errorf("find a free loop device: %w", err)
		}
		err = configure(n, file, ways)
		// Another took it between the two requests, and may be letting it go
		// already: opening it is ENXIO then (linux: drivers/block/loop.c, lo_open).
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue
		}
		if err != nil {
			return Device{}, fmt.Errorf("configure /dev/loop%d: %w", n, err)
		}
		d, found, err := Find(file)
		if err == nil && !found {
			err = errors.New("the device went away again")
		}
		return d, err
	}
	return Device{}, fmt.Errorf("no free loop device in %d attempts: %w", attempts, unix.EBUSY)
}

// configure binds the file to device n in the first way that works; the last
// is one without direct I/O.
func configure(n int, file *os.File, ways []way) error {
	dev, err := openDevice(n, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }() // the one that is open by then
	for _, c := range ways {
		config := &unix.LoopConfig{Fd: uint32(file.Fd()), Size: c.sector, Info: unix.LoopInfo64{Flags: c.flags}}
		err := unix.IoctlLoopConfigure(int(dev.Fd()), config)
		if errors.Is(err, unix.EINVAL) && c.flags != 0 {
			continue // sectors smaller than the disk's
		}
		if err == nil {
			err = writable(dev)
		}
		if err != nil || c.flags == 0 {
			return err
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err != nil {
			return err
		}
		if info.Flags&flagDirectIO != 0 {
			return nil
		}
		// Older kernels go on without direct I/O and do not say so.
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			return err
		}
		if err := reopen(n, &dev); err != nil {
			return err
		}
	}
	return nil
}

// writable takes off a device what BLKROSET put on it (ioctl_blk(4)), which
// would hold for the next file behind it, whoever's that is.
func writable(dev *os.File) error {
	return unix.IoctlSetPointerInt(int(dev.Fd()), unix.BLKROSET, 0)
}

// reopen closes and opens a device, which is what ends a cleared one.
func reopen(n int, dev **os.File) error {
	closed := (*dev).Close()
	again, err := openDevice(n, unix.O_RDWR)
	if err == nil {
		*dev = again
	}
	return errors.Join(closed, err)
}

// openDevice opens /dev/loopN; where the kernel has made the device but this
// /dev does not show it (a container's own), the node is made.
func openDevice(n, flags int) (*os.File, error) {
	name := "/dev/loop" + strconv.Itoa(n)
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		number, e := deviceNumber(n)
		if e != nil {
			return nil, errors.Join(err, e)
		}
		if e := unix.Mknod(name, unix.S_IFBLK|0o600, int(number)); e != nil && !errors.Is(e, unix.EEXIST) {
			return nil, fmt.Errorf("make the node %s: %w", name, e)
		}
		fd, err = unix.Open(name, flags|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func deviceNumber(n int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/dev", n))
	if err != nil {
		return 0, err
	}
	var maj, minor uint32
	if _, err := fmt.Sscanf(string(data), "%d:%d", &maj, &minor); err != nil {
		return 0, fmt.Errorf("device number of loop%d: %w", n, err)
	}
	if maj != major {
		return 0, fmt.Errorf("loop%d has major number %d, not %d", n, maj, major)
	}
	return unix.Mkdev(maj, minor), nil
}

// keep takes away the flag by which a device ends with its last user.
func keep(d Device) error {
	if d.flags&flagAutoclear == 0 {
		return nil
	}
	dev, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return err
	}
	info.Flags &^= flagAutoclear
	return unix.IoctlLoopSetStatus64(int(dev.Fd()), info)
}

// Find finds the device of a file.
func Find(file *os.File) (Device, bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return Device{}, false, fmt.Errorf("find the loop device of %s: %w", file.Name(), err)
	}
	devices, err := List()
	if err != nil {
		return Device{}, false, err
	}
	for _, d := range devices {
		if d.FileDev == st.Dev && d.FileInode == st.Ino {
			return d, true, nil
		}
	}
	return Device{}, false, nil
}

// List finds every loop device of the machine that has a file behind it. One
// that cannot tell what is behind it is left out: its file's filesystem has
// failed, and so would asking for that file.
func List() ([]Device, error) {
	// Only a bound device has a folder "loop" in sysfs.
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var out []Device
	for _, dir := range bound {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "loop"))
		if err != nil {
			continue
		}
		dev, err := openDevice(n, unix.O_RDONLY)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
			continue // let go meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read loop%d: %w", n, err)
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err := errors.Join(err, dev.Close()); err != nil {
			continue
		}
		out = append(out, Device{Path: dev.Name(), FileDev: info.Device, FileInode: info.Inode,
			DirectIO: info.Flags&flagDirectIO != 0, flags: info.Flags})
	}
	return out, nil
}

// SectorSize reads the size of the device's sectors in bytes (BLKSSZGET).
func SectorSize(d Device) (uint32, error) {
	dev, err := os.Open(d.Path)
	if err != nil {
		return 0, fmt.Errorf("sector size: %w", err)
	}
	size, err := unix.IoctlGetInt(int(dev.Fd()), unix.BLKSSZGET)
	if err := errors.Join(err, dev.Close()); err != nil {
		return 0, fmt.Errorf("sector size of %s: %w", d.Path, err)
	}
	return uint32(size), nil
}

// Resize makes the device as large as its file has become.
func Resize(d Device) error {
	dev, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("resize %s: %w", d.Path, err)
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", d.Path, err)
	}
	return nil
}

// How long Detach waits for whoever looks at the device in passing (udev).
const (
	detachWait = 3 * time.Second
	detachPoll = 5 * time.Millisecond
)

// Detach takes the file off its device; one that has none is no error.
// ErrInUse, and nothing is done, while the device is mounted in any mount
// namespace or exclusively open; ErrInUse also if another still has it open
// afterwards, and then it ends when that one closes it.
func Detach(file *os.File) error {
	d, found, err := Find(file)
	if err != nil || !found {
		return err
	}
	if err := release(d); err != nil {
		return fmt.Errorf("detach %s from %s: %w", file.Name(), d.Path, err)
	}
	for end := time.Now().Add(detachWait); ; <-time.After(detachPoll) {
		_, found, err := Find(file)
		if err != nil || !found {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("detach %s from %s: %w: it is still open", file.Name(), d.Path, ErrInUse)
		}
	}
}

// release ends the device. Opening it exclusively fails while a filesystem on
// it is mounted, in whatever namespace (open(2), O_EXCL on a block device).
func release(d Device) error {
	fd, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: it is mounted", ErrInUse)
	}
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	dev := os.NewFile(uintptr(fd), d.Path)
	// The device may have been given to another file since it was found.
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err == nil && info.Device == d.FileDev && info.Inode == d.FileInode {
		err = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		if err == nil {
			err = writable(dev)
		}
	}
	if errors.Is(err, unix.ENXIO) {
		err = nil
	}
	return errors.Join(err, dev.Close())
}
