package mounts

import (
	"context"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/fsck"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// Machine is the Host that mounts for real.
type Machine struct {
	Runner run.Runner // runs e2fsck
}

var _ Host = Machine{}

// Mounts implements Host.
func (Machine) Mounts() ([]mount.Mount, error) { return mount.List() }

// Bind implements Host.
func (Machine) Bind(source, target string, flags mount.Flags) error {
	return mount.BindPath(source, target, flags)
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
	return mount.Device(dev, target, fsType, options)
}

// Unmount implements Host.
func (Machine) Unmount(target string) error { return mount.Unmount(target) }

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
