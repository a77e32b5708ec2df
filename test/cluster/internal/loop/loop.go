// Package loop attaches files to loop devices and finds them again.
//
// Loop devices belong to the whole machine, while every node of a cluster sees
// its own filesystems at the same paths. So a device is always recognised by the
// device and inode number of the file behind it, never by that file's path.
package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ID is the file behind a loop device.
type ID struct{ Dev, Inode uint64 }

// Device is a loop device in use.
type Device struct {
	Path    string // /dev/loopN
	Rdev    uint64 // its own device number
	Backing ID     // of the file behind it
	File    string // the kernel's idea of the path of the file behind it: a hint only
}

// IDOf identifies the file at path.
func IDOf(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return ID{Dev: st.Dev, Inode: st.Ino}, nil
}

// List returns the loop devices of this machine that are in use, but for those
// whose file lies on a filesystem that has been shut down.
func List() ([]Device, error) {
	backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var all []Device
	for _, path := range backed {
		name := strings.Split(path, "/")[3]
		d, err := status("/dev/" + name)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
			continue // detached meanwhile
		}
		if errors.Is(err, unix.EIO) {
			continue // on a filesystem that is shut down: nobody can tell whose it is
		}
		if err != nil {
			return nil, fmt.Errorf("look at /dev/%s: %w", name, err)
		}
		if raw, err := os.ReadFile(path); err == nil {
			d.File = strings.TrimSpace(string(raw))
		}
		all = append(all, d)
	}
	return all, nil
}

func status(path string) (Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return Device{}, err
	}
	defer f.Close() //nolint:errcheck // read only
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Device{}, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return Device{}, err
	}
	return Device{Path: path, Rdev: st.Rdev, Backing: ID{Dev: decode(info.Device), Inode: info.Inode}}, nil
}

// decode turns the kernel's huge_encode_dev, which LOOP_GET_STATUS64 reports,
// into the encoding of stat(2).
func decode(dev uint64) uint64 {
	return unix.Mkdev(unix.Major(dev), unix.Minor(dev))
}

// Attach puts file behind a loop device and returns the device's path. A file
// that has a device already keeps it, also when several ask at the same time:
// two devices over one file would be two filesystems that overwrite each other.
func Attach(file string) (string, error) {
	path, err := attach(file)
	if err != nil {
		return "", fmt.Errorf("attach %s to a loop device: %w", file, err)
	}
	return path, nil
}

func attach(file string) (string, error) {
	unlock, err := lock(file)
	if err != nil {
		return "", err
	}
	defer unlock()
	id, err := IDOf(file)
	if err != nil {
		return "", err
	}
	all, err := List()
	if err != nil {
		return "", err
	}
	for _, d := range all {
		if d.Backing == id {
			return d.Path, nil
		}
	}
	return attachNew(file)
}

// lock keeps others from attaching file. Its descriptor is not the one that
// the device gets, which keeps its locks for as long as the device lasts.
func lock(file string) (unlock func(), err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func attachNew(file string) (string, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close() //nolint:errcheck // the device holds the file by itself
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer ctl.Close() //nolint:errcheck // nothing was written
	for {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("ask for a free loop device: %w", err)
		}
		path := "/dev/loop" + strconv.Itoa(n)
		err = configure(path, backing)
		if errors.Is(err, unix.EBUSY) {
			continue // someone else was faster
		}
		return path, err
	}
}

func configure(path string, backing *os.File) error {
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close() //nolint:errcheck // nothing was written
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	return unix.IoctlLoopConfigure(int(dev.Fd()), &config)
}

// Detach frees d and waits until ctx ends for the last user to let go of it.
// A device that was freed, or holds another file by now, is left alone.
func Detach(ctx context.Context, d Device) error {
	for {
		now, err := status(d.Path)
		switch {
		case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOENT):
			return nil
		case err == nil && now.Backing != d.Backing:
			return nil
		case err == nil, errors.Is(err, unix.EIO): // the latter: see List
			// In use, it only marks the device to go with its last user.
			err = clearFD(d.Path)
		}
		if err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("detach %s from %s: %w", d.Path, d.File, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %s from %s: it stays in use", d.Path, d.File)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func clearFD(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	return unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
}
