package device

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsTrimRange is struct fstrim_range of linux/fs.h, in bytes.
type fsTrimRange struct{ start, length, minLength uint64 }

// fiTrim is FITRIM, _IOWR('X', 121, struct fstrim_range).
const fiTrim = 0xc0185879

// Trims reports whether the filesystem that f is on passes free blocks on to a
// device that discards. It asks to trim nothing, which a filesystem that could
// finds invalid (ext4, XFS and btrfs look for the device's ability first).
func Trims(f *os.File) (bool, error) {
	err := trim(f, fsTrimRange{})
	switch {
	case err == nil || errors.Is(err, unix.EINVAL):
		return true, nil
	case unsupported(err):
		return false, nil
	}
	return false, fmt.Errorf("ask whether %s can be trimmed: %w", f.Name(), err)
}

// Trim makes the filesystem that f is on discard all its free blocks, after
// what was freed is durably free (FITRIM, as fstrim(8)).
func Trim(f *os.File) error {
	if err := AwaitFreed(f); err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the filesystem of %s: %w", f.Name(), err)
	}
	if err := trim(f, fsTrimRange{length: math.MaxUint64}); err != nil {
		return fmt.Errorf("trim the filesystem of %s: %w", f.Name(), err)
	}
	return nil
}

func trim(f *os.File, span fsTrimRange) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiTrim, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return errno
	}
	return nil
}
