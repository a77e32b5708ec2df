// Package clone copies what is in a file: by reference where the filesystem
// can, else the bytes, holes left out.
package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoReflink says that two files cannot share bytes: their filesystem has
// no such thing, or they are on two.
var ErrNoReflink = errors.New("no reflink between these files")

// probeSize is one block of every filesystem that has reflinks.
const probeSize = 4096

// Probe answers ErrNoReflink unless dst can share bytes with src, which has at
// least 4096 bytes. What is in dst afterwards is undefined.
func Probe(dst, src *os.File) error {
	return result(dst, src, unix.IoctlFileCloneRange(int(dst.Fd()),
		&unix.FileCloneRange{Src_fd: int64(src.Fd()), Src_length: probeSize}))
}

// Able reports whether files in a directory can share bytes. It leaves nothing
// behind.
func Able(dir *os.File) (bool, error) {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return false, nil // nor has it files without a name
		}
		if err != nil {
			return false, fmt.Errorf("make a file in %s: %w", dir.Name(), err)
		}
		files[i] = os.NewFile(uintptr(fd), dir.Name())
		defer files[i].Close()
	}
	if _, err := files[0].Write(make([]byte, probeSize)); err != nil {
		return false, fmt.Errorf("write a file in %s: %w", dir.Name(), err)
	}
	err := Probe(files[1], files[0])
	if errors.Is(err, ErrNoReflink) {
		return false, nil
	}
	return err == nil, err
}

// Reflink makes dst, which is no longer than src, share all bytes of src, at
// one instant (ioctl_ficlone(2)). ErrNoReflink where that cannot be; dst is
// then as it was.
func Reflink(dst, src *os.File) error {
	return result(dst, src, unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())))
}

func result(dst, src *os.File, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w: %w", ErrNoReflink, err)
	}
	return fmt.Errorf("reflink %s to %s: %w", src.Name(), dst.Name(), err)
}

// chunk is how many bytes are copied before the context is asked again.
const chunk = 16 << 20

// Data copies the bytes of src to dst, which is empty and gets the size of
// src; holes stay holes (lseek(2), SEEK_DATA). It is not done at one instant.
// moved is told the bytes copied so far, and its error ends the copy.
func Data(ctx context.Context, dst, src *os.File, moved func(context.Context, int64) error) error {
	if err := data(ctx, dst, src, moved); err != nil {
		return fmt.Errorf("copy %s to %s: %w", src.Name(), dst.Name(), err)
	}
	return nil
}

func data(ctx context.Context, dst, src *os.File, moved func(context.Context, int64) error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if err := dst.Truncate(st.Size); err != nil {
		return err
	}
	var sum int64
	for at := int64(0); at < st.Size; {
		from, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		if err != nil {
			return err
		}
		to, err := unix.Seek(int(src.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		before := sum - from
		if err := extent(ctx, dst, src, from, to, func(at int64) error { return moved(ctx, before+at) }); err != nil {
			return err
		}
		sum += to - from
		at = to
	}
	return nil
}

// extent copies the bytes of one extent to the same place, and tells moved
// where it is.
func extent(ctx context.Context, dst, src *os.File, from, to int64, moved func(int64) error) error {
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, out := from, from
		n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(chunk, to-from)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOSYS) {
			return bytewise(dst, src, from, to)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // it became shorter meanwhile
		}
		from += int64(n)
		if err := moved(from); err != nil {
			return err
		}
	}
	return nil
}

func bytewise(dst, src *os.File, from, to int64) error {
	_, err := io.Copy(io.NewOffsetWriter(dst, from), io.NewSectionReader(src, from, to-from))
	return err
}
