package mounts

import (
	"context"
	"errors"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Publish binds a staged volume, or its device, to target. A second target is
// refused with ErrInUse for ReadWriteOncePod (CSI 1.13, NodePublishVolume,
// table of second publishes).
//
// A device that one consumer has read-only is read-only for all: the mount
// under which a device node is seen does not restrict the device. So a device
// is published read-only or read-write, not both at once.
func (s *Service) Publish(ctx context.Context, id volume.ID, staging, target string, u volume.Use) error {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return fmt.Errorf("publish volume: %w", err)
	}
	defer release()
	if err := s.publish(ctx, v, staging, target, u); err != nil {
		return fmt.Errorf("publish volume %s: %w", id, err)
	}
	return nil
}

func (s *Service) publish(ctx context.Context, v volume.Volume, staging, target string, u volume.Use) error {
	if err := suits(v, u); err != nil {
		return err
	}
	if staging == target {
		return fmt.Errorf("%w: staging and target are the same path", volume.ErrInvalid)
	}
	src, err := s.volumes.Attach(ctx, v.ID)
	if err != nil {
		return err
	}
	if err := checkOptions(v, u, src); err != nil {
		return err
	}
	views, err := s.views(src, v.Mode)
	if err != nil {
		return err
	}
	staged, published := v.Mode == volume.Block, false
	var others []string
	for _, view := range views {
		switch view.Point {
		case staging:
			staged = true
		case target:
			published = true
		default:
			others = append(others, view.Point)
		}
	}
	if !staged {
		return fmt.Errorf("%w at %s", volume.ErrNotStaged, staging)
	}
	// Published here already, the others are what this consumer's runtime made
	// of it: kubelet binds the device of a block volume once more.
	if len(others) > 0 && !published && u.AccessMode == volume.ReadWriteOncePod {
		return fmt.Errorf("%w: it is %s, and published at %s", volume.ErrInUse, volume.ReadWriteOncePod, others[0])
	}
	if v.Mode == volume.Block {
		return s.publishDevice(src, target, u, len(others) > 0)
	}
	return s.publishDir(src, staging, target, u)
}

func (s *Service) publishDir(src backend.Source, staging, target string, u volume.Use) error {
	there, err := s.at(target, src, volume.Filesystem)
	if err != nil {
		return err
	}
	if there != nil {
		return sameFlags(*there, mountFlags(u))
	}
	if err := s.host.MakeDir(target); err != nil {
		return err
	}
	return s.host.Bind(staging, target, mountFlags(u))
}

func (s *Service) publishDevice(src backend.Source, target string, u volume.Use, others bool) error {
	there, err := s.at(target, src, volume.Block)
	if err != nil {
		return err
	}
	if there != nil && there.ReadOnly() != u.ReadOnly {
		return fmt.Errorf("%w: it is published there already, with read-only %t, asked is %t", volume.ErrExists, there.ReadOnly(), u.ReadOnly)
	}
	is, err := s.host.DeviceReadOnly(src.Device)
	if err != nil {
		return err
	}
	if is != u.ReadOnly {
		if others {
			return fmt.Errorf("%w: others have the device with read-only %t, asked is %t", volume.ErrInUse, is, u.ReadOnly)
		}
		if err := s.host.SetDeviceReadOnly(src.Device, u.ReadOnly); err != nil {
			return err
		}
	}
	if there != nil {
		return nil
	}
	if err := s.host.MakeFile(target); err != nil {
		return err
	}
	// nodev would keep the consumer from the device.
	return s.host.Bind(src.Device, target, mount.Flags{ReadOnly: u.ReadOnly, NoSuid: true, NoExec: true})
}

// Unpublish unmounts target and removes it, and deletes a volume that is
// ephemeral. Of another it asks nothing of the pool, so that a consumer can go
// when its disk has gone.
func (s *Service) Unpublish(ctx context.Context, id volume.ID, target string) error {
	v, err := s.volumes.Get(ctx, id)
	if errors.Is(err, volume.ErrNotFound) || err == nil && v.Ephemeral {
		// One that is half made or half deleted is found nowhere, too.
		if err := s.discard(ctx, id, target); err != nil {
			return fmt.Errorf("unpublish volume %s: %w", id, err)
		}
		return nil
	}
	release, err := s.volumes.Hold(id)
	if err != nil {
		return fmt.Errorf("unpublish volume: %w", err)
	}
	defer release()
	if err := s.clear(target); err != nil {
		return fmt.Errorf("unpublish volume %s: %w", id, err)
	}
	return nil
}

// clear unmounts a path and removes the empty directory or the file there.
func (s *Service) clear(path string) error {
	if err := s.unmountAll(path); err != nil {
		return err
	}
	return s.host.Remove(path)
}

// Stats counts a volume seen at path; ErrNotFound if it is not there.
func (s *Service) Stats(ctx context.Context, id volume.ID, path string) (volume.Usage, error) {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("stats of volume: %w", err)
	}
	defer release()
	if err := s.seenAt(ctx, v, path); err != nil {
		return volume.Usage{}, fmt.Errorf("stats of volume %s: %w", id, err)
	}
	if v.Mode == volume.Block {
		return volume.Usage{TotalBytes: v.Size}, nil
	}
	return s.volumes.Usage(ctx, id, path)
}

// Expand grows the filesystem of a volume seen at path to the size of its
// device, and returns the volume's size in bytes. A directory and a device
// have their new size already.
func (s *Service) Expand(ctx context.Context, id volume.ID, path string) (int64, error) {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("expand volume: %w", err)
	}
	defer release()
	if err := s.seenAt(ctx, v, path); err != nil {
		return 0, fmt.Errorf("expand volume %s: %w", id, err)
	}
	if v.Mode == volume.Filesystem && v.FSType != "" {
		if err := s.host.Grow(path); err != nil {
			return 0, fmt.Errorf("expand volume %s: %w", id, err)
		}
	}
	return v.Size, nil
}

// seenAt returns ErrNotFound unless the volume is what is mounted at path.
func (s *Service) seenAt(ctx context.Context, v volume.Volume, path string) error {
	notThere := fmt.Errorf("%w: it is not at %.200q", volume.ErrNotFound, path)
	all, err := s.host.Mounts()
	if err != nil {
		return err
	}
	if top(all, path) == nil {
		// A device that is only staged is mounted nowhere; kubelet then names
		// its staging directory.
		return notThere
	}
	src, err := s.volumes.Attach(ctx, v.ID)
	if err != nil {
		return err
	}
	if _, err := s.at(path, src, v.Mode); err != nil {
		views, viewsErr := s.views(src, v.Mode)
		if viewsErr == nil && len(views) == 0 {
			err = errors.Join(err, s.volumes.Detach(ctx, v.ID)) // it was not attached before
		}
		if errors.Is(err, volume.ErrExists) {
			err = fmt.Errorf("%w (%v)", notThere, err)
		}
		return err
	}
	return nil
}
