package image

import (
	"errors"
	"fmt"
	"os"

	"github.com/plinth-csi/plinth/driver/host/clone"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// still is an image that is copied by reference while it is held still.
type still struct {
	*copying
	unused *os.File       // its device, open so that nobody can mount it; or nil
	on     *mount.Mounted // its filesystem, where it is mounted; or nil
}

// Capture implements copier.
func (m *machine) Capture(from, to string) (_ capture, err error) {
	c, err := m.begin(from, to)
	if err != nil {
		return nil, full(err)
	}
	s := &still{copying: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(), m.Free(to))
		}
	}()
	if err := clone.Probe(c.dst, c.src); err != nil {
		if errors.Is(err, clone.ErrNoReflink) {
			err = fmt.Errorf("%w: %w", volume.ErrUnsupported, err)
		}
		return nil, full(err)
	}
	d, attached, err := loop.Find(c.src)
	if err != nil || !attached {
		return s, err
	}
	return s, s.reach(d, c.holds)
}

// reach finds out how an attached image is to be held still, and has most of
// what there is to write written.
func (s *still) reach(d loop.Device, holds content) error {
	if holds == block {
		return fmt.Errorf("%w: it is a Block volume and attached as %s, and whoever writes to a device cannot be stopped; end its use first", volume.ErrInUse, d.Path)
	}
	fd, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		s.unused = os.NewFile(uintptr(fd), d.Path)
		if err := s.unused.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", d.Path, err)
		}
		return nil
	}
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("open %s: %w", d.Path, err)
	}
	major, minor, err := device.Number(d.Path)
	if err != nil {
		return err
	}
	s.on, err = mount.Reach(major, minor)
	if errors.Is(err, mount.ErrNotMountedHere) {
		err = fmt.Errorf("%w: %s: %w", volume.ErrInUse, d.Path, err)
	}
	return err
}

// Freeze implements backend.Capture.
func (s *still) Freeze() error {
	if s.on == nil {
		return nil
	}
	err := s.on.Freeze()
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w: somebody else has frozen it: %w", volume.ErrBusy, err)
	}
	return err
}

// Cut implements backend.Capture.
func (s *still) Cut() error { return full(clone.Reflink(s.dst, s.src)) }

// Thaw implements backend.Capture.
func (s *still) Thaw() error {
	if s.on == nil {
		return nil
	}
	return s.on.Thaw()
}

// Seal implements capture.
func (s *still) Seal() error {
	if err := errors.Join(s.Thaw(), s.release()); err != nil {
		return err
	}
	return full(s.dst.Sync())
}

// Close implements backend.Capture.
func (s *still) Close() error {
	err := s.Thaw()
	if s.on != nil {
		err = errors.Join(err, s.on.Close())
	}
	if s.unused != nil {
		err = errors.Join(err, s.unused.Close())
	}
	return errors.Join(err, s.release(), s.close())
}
