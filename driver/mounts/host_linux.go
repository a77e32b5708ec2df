package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/fsck"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Machine is the Host that mounts for real.
type Machine struct {
	Runner run.Runner // runs e2fsck
}

var _ Host = Machine{}

// Mounts implements Host.
func (Machine) Mounts() ([]mount.Mount, error) { return mount.List() }

// MakeDir implements Places.
func (Machine) MakeDir(path string) error { return place(mount.MakeDir(path)) }

// MakeFile implements Places.
func (Machine) MakeFile(path string) error { return place(mount.MakeFile(path)) }

// Rename implements Places.
func (Machine) Rename(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove implements Places.
func (Machine) Remove(path string) error { return place(mount.Remove(path)) }

// place is an error of a place for a mount in the words of driver/volume.
func place(err error) error {
	switch {
	case errors.Is(err, mount.ErrOccupied):
		return fmt.Errorf("%w: %w", volume.ErrExists, err)
	case errors.Is(err, mount.ErrSymlink):
		return fmt.Errorf("%w: %w", volume.ErrInvalid, err)
	}
	return err
}

// Bind implements Host.
func (Machine) Bind(source, target string, flags mount.Flags) error {
	if err := mount.Vacant(target); err != nil {
		return place(err)
	}
	return place(mount.BindPath(source, target, flags))
}

// Mount implements Host. A filesystem that nobody has mounted is repaired and
// grown first.
func (m Machine) Mount(ctx context.Context, dev, target, fsType string, options []string) error {
	if fsType == memoryFS {
		return mount.Device(dev, target, fsType, options)
	}
	major, minor, err := device.Number(dev)
	if err != nil {
		return err
	}
	others, err := mount.OfDevice(major, minor)
	if err != nil {
		return err
	}
	if len(others) == 0 {
		if err := fsck.Prepare(ctx, m.Runner, dev, fsType); err != nil {
			return err
		}
	}
	if err := mount.Vacant(target); err != nil {
		return place(err)
	}
	return place(fsck.Explain(mount.Device(dev, target, fsType, options), dev, fsType))
}

// Unmount implements Host.
func (Machine) Unmount(target string) error { return place(mount.Unmount(target)) }

// Grow implements Host.
func (Machine) Grow(target string) error { return mount.Grow(target) }

// DeviceNumber implements Host.
func (Machine) DeviceNumber(dev string) (major, minor int, err error) { return device.Number(dev) }

// DeviceReadOnly implements Host.
func (Machine) DeviceReadOnly(dev string) (bool, error) { return device.ReadOnly(dev) }

// SetDeviceReadOnly implements Host.
func (Machine) SetDeviceReadOnly(dev string, readOnly bool) error {
	return device.SetReadOnly(dev, readOnly)
}
