package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/device"
)

// vfsOptions are the mount options that the kernel takes as flags, not as
// text for the filesystem (mount(2), mount(8)).
var vfsOptions = map[string]struct {
	set, clear uintptr
}{
	"defaults": {}, "rw": {clear: unix.MS_RDONLY}, "ro": {set: unix.MS_RDONLY},
	"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
	"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
	"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
	"sync": {set: unix.MS_SYNCHRONOUS}, "async": {clear: unix.MS_SYNCHRONOUS},
	"dirsync": {set: unix.MS_DIRSYNC}, "noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME},
	"nodiratime": {set: unix.MS_NODIRATIME}, "diratime": {clear: unix.MS_NODIRATIME},
	"relatime": {set: unix.MS_RELATIME}, "norelatime": {clear: unix.MS_RELATIME},
	"strictatime": {set: unix.MS_STRICTATIME}, "lazytime": {set: unix.MS_LAZYTIME},
	"nolazytime": {clear: unix.MS_LAZYTIME},
}

// Device mounts the filesystem on a block device at target, with options as
// mount(8) spells them; a later one wins over an earlier. Nothing is formatted
// and nothing is checked: it mounts or it does not. A target with a symlink in
// its path is refused with ErrSymlink.
func Device(device, target, fsType string, options []string) error {
	if err := mountDevice(device, target, fsType, options); err != nil {
		return fmt.Errorf("mount %s at %s as %s with options %q: %w", device, target, fsType, strings.Join(options, ","), err)
	}
	return nil
}

func mountDevice(device, target, fsType string, options []string) error {
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
	flags, data := parseOptions(options)
	return unix.Mount(device, procPath(on), fsType, flags, data)
}

func parseOptions(options []string) (flags uintptr, data string) {
	var text []string
	for _, o := range options {
		if v, known := vfsOptions[o]; known {
			flags = flags&^v.clear | v.set
		} else if o != "" {
			text = append(text, o)
		}
	}
	return flags, strings.Join(text, ",")
}

// The requests that grow a mounted filesystem, and their arguments
// (linux: fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h).
const (
	ext4ResizeFS    = 0x40086610 // EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64)
	xfsGeometryV1   = 0x80705864 // XFS_IOC_FSGEOMETRY_V1, _IOR('X', 100, struct xfs_fsop_geom_v1)
	xfsGrowFSData   = 0x4010586e // XFS_IOC_FSGROWFSDATA, _IOW('X', 110, struct xfs_growfs_data)
	xfsGeometrySize = 112
)

// xfsGrow is struct xfs_growfs_data.
type xfsGrow struct {
	newBlocks uint64
	imaxPct   uint32
	_         uint32
}

// Grow makes the ext4 or XFS filesystem mounted at target fill its device. It
// asks the kernel as resize2fs and xfs_growfs do when the filesystem is
// mounted; one that fills its device is left alone. It never shrinks.
func Grow(target string) error {
	if err := grow(target); err != nil {
		return fmt.Errorf("grow the filesystem at %s: %w", target, err)
	}
	return nil
}

func grow(target string) error {
	mounts, err := At(target)
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		return errors.New("nothing is mounted there")
	}
	m := mounts[len(mounts)-1]
	size, err := deviceSize(m)
	if err != nil {
		return err
	}
	dir, err := os.Open(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	switch m.FSType {
	case "ext4":
		if fills, err := ext4Fills(m); err == nil && fills {
			return nil
		}
		return growExt4(int(dir.Fd()), size)
	case "xfs":
		return growXFS(int(dir.Fd()), size)
	}
	return fmt.Errorf("cannot grow %s: %w", m.FSType, errors.ErrUnsupported)
}

// deviceSize reads the size, in bytes, of the block device below a mount. It
// is found by number, since the source may be a name of another namespace.
func deviceSize(m Mount) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/size", m.Major, m.Minor))
	if err != nil {
		return 0, err
	}
	var sectors int64
	if _, err := fmt.Sscan(string(data), &sectors); err != nil {
		return 0, fmt.Errorf("size of the device: %w", err)
	}
	return sectors * 512, nil // in 512-byte units whatever the device's own are
}

func growExt4(fd int, size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	blocks := uint64(size / st.Bsize)
	err := ioctl(fd, ext4ResizeFS, unsafe.Pointer(&blocks))
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("ext4 grows while it is mounted only for a process with CAP_SYS_RESOURCE; it grows without when it is mounted next: %w", err)
	}
	return err
}

// ext4Fills spares a filesystem that has nothing to grow the request, which
// needs CAP_SYS_RESOURCE even then.
func ext4Fills(m Mount) (bool, error) {
	major, minor, err := device.Number(m.Source)
	if err != nil {
		return false, err
	}
	if major != m.Major || minor != m.Minor {
		return false, errors.New("the node of the device is another's")
	}
	return device.Ext4Fills(m.Source)
}

func growXFS(fd int, size int64) error {
	// Of struct xfs_fsop_geom_v1: blocksize is uint32 number 0, imaxpct number 7,
	// datablocks is at byte 32.
	var geometry [xfsGeometrySize / 8]uint64
	if err := ioctl(fd, xfsGeometryV1, unsafe.Pointer(&geometry)); err != nil {
		return fmt.Errorf("geometry: %w", err)
	}
	words := (*[xfsGeometrySize / 4]uint32)(unsafe.Pointer(&geometry))
	want := xfsGrow{newBlocks: uint64(size) / uint64(words[0]), imaxPct: words[7]}
	if want.newBlocks <= geometry[4] {
		return nil
	}
	return ioctl(fd, xfsGrowFSData, unsafe.Pointer(&want))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
