// Package device asks about block devices by their nodes (ioctl_blk(4) and
// linux/fs.h).
package device

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Number gives the device number of the block device at path.
func Number(path string) (major, minor int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("device number of %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("device number of %s: %w", path, unix.ENOTBLK)
	}
	return int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev)), nil
}

// ReadOnly reports whether the device refuses writes (BLKROGET).
func ReadOnly(path string) (bool, error) {
	var is bool
	err := with(path, func(f *os.File) error {
		value, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
		is = value != 0
		return err
	})
	return is, err
}

// SetReadOnly makes the device refuse writes, or take them again (BLKROSET).
// It holds for everybody who has the device, also by another node.
func SetReadOnly(path string, readOnly bool) error {
	value := 0
	if readOnly {
		value = 1
	}
	return with(path, func(f *os.File) error {
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, value)
	})
}

func with(path string, do func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if err := errors.Join(do(f), f.Close()); err != nil {
		return fmt.Errorf("device %s: %w", path, err)
	}
	return nil
}
