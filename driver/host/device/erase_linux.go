package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EndSize is how many bytes at each end of a device are where partition
// tables, volume managers and filesystems have what they are known by.
const EndSize = 1 << 20

// eraseStep is how many bytes one request discards or zeroes: what cannot be
// interrupted.
const eraseStep = 1 << 30

// Blank reports whether both ends of an open device read as zeros. Where they
// do not, libblkid may know what it is, or nobody does.
func Blank(f *os.File, size int64) (bool, error) {
	for _, at := range []int64{0, size - EndSize} {
		if blank, err := zeroAt(f, at); err != nil || !blank {
			return false, err
		}
	}
	return true, nil
}

func zeroAt(f *os.File, at int64) (bool, error) {
	buf := make([]byte, EndSize)
	if _, err := f.ReadAt(buf, at); err != nil {
		return false, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return !slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }), nil
}

// ZeroEnds writes zeros over both ends of an open device, durably.
func ZeroEnds(f *os.File, size int64) error {
	zeros := make([]byte, EndSize)
	for _, at := range []int64{0, size - EndSize} {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return fmt.Errorf("write %s: %w", f.Name(), err)
		}
	}
	return f.Sync()
}

// Discard tells the device that nothing on it is needed (BLKDISCARD). What it
// then reads as is the device's affair. A device that cannot is no error.
func Discard(ctx context.Context, f *os.File, size int64) error {
	return discard(ctx, f, size, unix.BLKDISCARD)
}

// DiscardSecurely also makes the device destroy the bytes and all copies that
// it has of them (BLKSECDISCARD), if it can: it reports whether it has.
func DiscardSecurely(ctx context.Context, f *os.File, size int64) (bool, error) {
	err := blockRange(f, unix.BLKSECDISCARD, 0, min(size, eraseStep))
	if unsupported(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, discard(ctx, f, size, unix.BLKSECDISCARD)
}

func discard(ctx context.Context, f *os.File, size int64, request uint) error {
	for at := int64(0); at < size; at += eraseStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := blockRange(f, request, at, min(eraseStep, size-at))
		if unsupported(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Zero makes the device read as zeros from one byte to another, both multiples
// of 4096 or the end. Where the device can give back what is zero, it does
// (fallocate(2), FALLOC_FL_PUNCH_HOLE); else it zeroes by itself or the zeros
// are written (BLKZEROOUT). It ends early, with the byte that it got to, when
// the context does.
func Zero(ctx context.Context, f *os.File, from, to int64) (int64, error) {
	for from < to {
		if err := ctx.Err(); err != nil {
			return from, err
		}
		n := min(eraseStep, to-from)
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, n)
		if unsupported(err) {
			err = blockRange(f, unix.BLKZEROOUT, from, n)
		}
		if err != nil {
			return from, fmt.Errorf("zero %s from byte %d: %w", f.Name(), from, err)
		}
		from += n
	}
	return from, f.Sync()
}

// blockRange issues a request of linux/fs.h that takes a start and a length.
func blockRange(f *os.File, request uint, from, length int64) error {
	span := [2]uint64{uint64(from), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return fmt.Errorf("erase %s from byte %d: %w", f.Name(), from, errno)
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY)
}
