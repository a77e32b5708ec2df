package mounts

import (
	"context"
	"errors"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Makers is what ephemeral volumes ask of the pools beyond Volumes. Both take
// the volume's lock themselves.
type Makers interface {
	// Create makes a volume, resumes one that was cut, or finds the one of
	// that name; ErrExists if that has other properties.
	Create(ctx context.Context, r volume.Request) (volume.Volume, error)
	// DeleteEphemeral returns once the bytes of an ephemeral volume are free,
	// also of one that is half made. One that is not there or not ephemeral is
	// left alone and no error; ErrInUse while it is attached or mounted.
	DeleteEphemeral(ctx context.Context, id volume.ID) error
}

// PublishEphemeral makes a volume for one pod and mounts it at target, without
// staging. Unpublish deletes it (CSI inline volumes: kubelet calls
// NodePublishVolume and NodeUnpublishVolume alone). Called again it finds what
// it made before; ErrExists if that is another kind of volume or is mounted
// with other flags, ErrInUse at a second target.
//
// A call that fails leaves nothing of the volume if it began without one, for
// kubelet calls Unpublish only where it may have worked. What a cut leaves is
// found by the next PublishEphemeral or deleted by Unpublish, whichever comes.
func (s *Service) PublishEphemeral(ctx context.Context, id volume.ID, target string, u volume.Use, r volume.Request) error {
	if r.Mode != volume.Filesystem {
		return fmt.Errorf("publish ephemeral volume %s: %w: it is mounted, and cannot be a %s volume", id, volume.ErrInvalid, r.Mode)
	}
	_, err := s.volumes.Get(ctx, id)
	begun := !errors.Is(err, volume.ErrNotFound)
	r.ID, r.Ephemeral = id, true
	if _, err := s.volumes.Create(ctx, r); err != nil {
		return fmt.Errorf("publish ephemeral volume: %w", err)
	}
	err = s.publishEphemeral(ctx, id, target, u)
	if err != nil && !begun && ctx.Err() == nil {
		err = errors.Join(err, s.discard(ctx, id, target))
	}
	if err != nil {
		return fmt.Errorf("publish ephemeral volume %s: %w", id, err)
	}
	return nil
}

func (s *Service) publishEphemeral(ctx context.Context, id volume.ID, target string, u volume.Use) error {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	if err := suits(v, u); err != nil {
		return err
	}
	src, err := s.volumes.Attach(ctx, id)
	if err != nil {
		return err
	}
	if err := s.only(v, src, target); err != nil {
		return err
	}
	return s.mountAt(ctx, v, src, target, u)
}

// only is ErrInUse if a volume is mounted anywhere but at path.
func (s *Service) only(v volume.Volume, src backend.Source, path string) error {
	views, err := s.views(src, v.Mode)
	if err != nil {
		return err
	}
	for _, view := range views {
		if view.Point != path {
			return fmt.Errorf("%w: it is mounted at %s", volume.ErrInUse, view.Point)
		}
	}
	return nil
}

// discard undoes PublishEphemeral. The target goes last: while it is there,
// kubelet knows that there is something to unpublish, also after a restart.
func (s *Service) discard(ctx context.Context, id volume.ID, target string) error {
	release, err := s.volumes.Hold(id)
	if err != nil {
		return err
	}
	err = s.unmountAt(ctx, id, target)
	release()
	if err != nil {
		return err
	}
	if err := s.volumes.DeleteEphemeral(ctx, id); err != nil {
		return err
	}
	return s.clear(target)
}
