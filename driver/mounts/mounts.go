// Package mounts stages and publishes volumes, and keeps those mounted that
// are used without a driver. It remembers nothing: what is mounted is read
// from the kernel every time, so it goes on after any cut.
package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// The keys of what this package logs.
const (
	logVolume = "volume"
	logTarget = "target"
	logError  = "error"
)

// Volumes is what the service asks of the pools. Attach, Detach,
// SetExposed and Name are called with the volume held.
type Volumes interface {
	Makers
	// Hold takes the one lock of a volume; ErrBusy if somebody has it.
	Hold(id volume.ID) (release func(), err error)
	// Get returns ErrNotFound for a volume without a record.
	Get(ctx context.Context, id volume.ID) (volume.Volume, error)
	// Attach says what to mount; it may be called again.
	Attach(ctx context.Context, id volume.ID) (backend.Source, error)
	// Detach undoes Attach; a volume that is not attached is no error.
	Detach(ctx context.Context, id volume.ID) error
	// Usage counts a volume; mountedAt is where its filesystem is mounted, or "".
	Usage(ctx context.Context, id volume.ID, mountedAt string) (volume.Usage, error)
	// SetExposed records durably whether a volume is exposed.
	SetExposed(ctx context.Context, id volume.ID, exposed bool) error
	// Name gives a volume that is exposed at target the path that it was made
	// with, if any, and returns where it is to be found.
	Name(ctx context.Context, id volume.ID, target string) (string, error)
	// Exposed lists the volumes recorded as exposed.
	Exposed(ctx context.Context) ([]volume.ID, error)
}

// Places makes and removes what volumes are mounted on. A path with a symlink
// in it is ErrInvalid: who can swap a directory for a link must not choose what
// is mounted over.
type Places interface {
	// MakeDir makes a directory and those above it. One that is there is no
	// error; anything else is ErrExists.
	MakeDir(path string) error
	// MakeFile makes an empty file. A file or a device that is there is no
	// error; anything else is ErrExists.
	MakeFile(path string) error
	// Rename moves a directory with the mount in it. One that is not there is
	// no error; a directory that is not empty is not replaced.
	Rename(from, to string) error
	// Remove removes an empty file or directory, and nothing else: ErrExists.
	// One that is not there is no error.
	Remove(path string) error
}

// Host is what the service asks of the machine.
type Host interface {
	Places
	Devices
	// Mounts lists all mounts, in the order they were made.
	Mounts() ([]mount.Mount, error)
	// Bind mounts a directory or a device node on an empty directory or file;
	// ErrExists if there is something that would be hidden.
	Bind(source, target string, flags mount.Flags) error
	// Mount repairs, where that is safe, and mounts a filesystem on a
	// directory that is empty, else ErrExists. It never formats. The device of
	// one in memory is its own type, and that alone may hide what is there.
	Mount(ctx context.Context, device, target, fsType string, options []string) error
	// Unmount takes the topmost mount off a path.
	Unmount(target string) error
	// Grow makes the filesystem mounted at target fill its device.
	Grow(target string) error
}

// Devices is what the service asks about block devices.
type Devices interface {
	// DeviceNumber gives the number of a block device.
	DeviceNumber(device string) (major, minor int, err error)
	// DeviceReadOnly reports whether a device refuses writes.
	DeviceReadOnly(device string) (bool, error)
	// SetDeviceReadOnly makes a device refuse writes, or take them again.
	SetDeviceReadOnly(device string, readOnly bool) error
}

// Options are what a Service needs.
type Options struct {
	Volumes Volumes
	Host    Host
	Dir     string // where exposed volumes are mounted; made when needed
	Log     *slog.Logger
}

// Service mounts volumes. It satisfies driver.Mounter.
type Service struct {
	volumes Volumes
	host    Host
	dir     string
	log     *slog.Logger
	making  sync.Mutex // of the place for exposed volumes
}

// New checks the options.
func New(o Options) (*Service, error) {
	if o.Volumes == nil || o.Host == nil || o.Log == nil || !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) != o.Dir {
		return nil, fmt.Errorf("%w: mounts need volumes, a host, a log and an absolute, clean directory, not %q", volume.ErrInvalid, o.Dir)
	}
	return &Service{volumes: o.Volumes, host: o.Host, dir: o.Dir, log: o.Log}, nil
}

// Get returns a volume as its record tells it; ErrNotFound without one.
func (s *Service) Get(ctx context.Context, id volume.ID) (volume.Volume, error) {
	return s.volumes.Get(ctx, id)
}

// begin holds a volume and reads its record.
func (s *Service) begin(ctx context.Context, id volume.ID) (volume.Volume, func(), error) {
	release, err := s.volumes.Hold(id)
	if err != nil {
		return volume.Volume{}, nil, err
	}
	v, err := s.volumes.Get(ctx, id)
	if err != nil {
		release()
		return volume.Volume{}, nil, err
	}
	return v, release, nil
}

// suits checks a use against the record.
func suits(v volume.Volume, u volume.Use) error {
	switch {
	case u.Mode != v.Mode:
		return fmt.Errorf("%w: volume %s is a %s volume, asked is %s", volume.ErrInvalid, v.ID, v.Mode, u.Mode)
	case u.FSType != "" && u.FSType != v.FSType:
		return fmt.Errorf("%w: volume %s has the filesystem %q, asked is %.20q", volume.ErrInvalid, v.ID, v.FSType, u.FSType)
	case v.Node != "" && (u.AccessMode == volume.ReadWriteMany || u.AccessMode == volume.ReadOnlyMany):
		return fmt.Errorf("%w: volume %s lives on one node and cannot be %s", volume.ErrInvalid, v.ID, u.AccessMode)
	}
	return nil
}

// Stage mounts a volume at staging: a directory of the pool is bound there, a
// filesystem on a device is repaired where that is safe, mounted, and grown to
// the size of the device. A device that is used as such is only attached.
func (s *Service) Stage(ctx context.Context, id volume.ID, staging string, u volume.Use) error {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return fmt.Errorf("stage volume: %w", err)
	}
	defer release()
	if err := suits(v, u); err != nil {
		return fmt.Errorf("stage volume: %w", err)
	}
	src, err := s.volumes.Attach(ctx, id)
	if err != nil {
		return fmt.Errorf("stage volume: %w", err)
	}
	if v.Mode == volume.Block {
		return checkOptions(v, u, src)
	}
	if err := s.mountAt(ctx, v, src, staging, u); err != nil {
		return fmt.Errorf("stage volume %s: %w", id, err)
	}
	return nil
}

// mountAt brings a volume with a filesystem or directory to a path, unless it
// is there.
func (s *Service) mountAt(ctx context.Context, v volume.Volume, src backend.Source, path string, u volume.Use) error {
	if err := checkOptions(v, u, src); err != nil {
		return err
	}
	there, err := s.at(path, src, v.Mode)
	if err != nil {
		return err
	}
	flags := mountFlags(u)
	if there != nil {
		err = sameOptions(*there, u)
	} else if err = s.host.MakeDir(path); err == nil && src.Dir != "" {
		err = s.host.Bind(src.Dir, path, flags)
	} else if err == nil {
		err = s.host.Mount(ctx, src.Device, path, src.FSType, deviceOptions(u))
	}
	if err != nil {
		return err
	}
	if src.Dir != "" || flags.ReadOnly {
		return nil
	}
	err = s.host.Grow(path) // it may have grown while nobody had it mounted
	if there != nil && errors.Is(err, fs.ErrPermission) {
		// It is as usable as before; who wants it larger is told by Expand.
		s.log.Warn("volume is mounted and does not grow", logVolume, v.ID, logError, err)
		return nil
	}
	return err
}

// Unstage unmounts staging and lets go of the device, unless consumers still
// have the volume: then it is ErrInUse.
func (s *Service) Unstage(ctx context.Context, id volume.ID, staging string) error {
	release, err := s.volumes.Hold(id)
	if err != nil {
		return fmt.Errorf("unstage volume: %w", err)
	}
	defer release()
	if err := s.unmountAt(ctx, id, staging); err != nil {
		return fmt.Errorf("unstage volume %s: %w", id, err)
	}
	return nil
}

// unmountAt unmounts what is at path and detaches the volume, if path is the
// last place where it is mounted.
func (s *Service) unmountAt(ctx context.Context, id volume.ID, path string) error {
	v, err := s.volumes.Get(ctx, id)
	if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrPoolUnavailable) {
		// Whatever is mounted there has no business to be; Detach tells the
		// rest.
		return errors.Join(s.unmountAll(path), s.volumes.Detach(ctx, id))
	}
	if err != nil {
		return err
	}
	src, err := s.volumes.Attach(ctx, id)
	if err != nil {
		return err
	}
	if err := s.only(v, src, path); err != nil {
		return err
	}
	if err := s.unmountAll(path); err != nil {
		return err
	}
	return s.volumes.Detach(ctx, id)
}

// unmountAll takes all mounts off a path.
func (s *Service) unmountAll(path string) error {
	for {
		all, err := s.host.Mounts()
		if err != nil {
			return err
		}
		if top(all, path) == nil {
			return nil
		}
		if err := s.host.Unmount(path); err != nil {
			return err
		}
	}
}
