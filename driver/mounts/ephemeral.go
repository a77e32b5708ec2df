package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
	// Ephemeral lists the ephemeral volumes.
	Ephemeral(ctx context.Context) ([]volume.Volume, error)
}

// PublishEphemeral makes a volume for one pod and mounts it at target, without
// staging. Unpublish deletes it (CSI inline volumes: kubelet calls
// NodePublishVolume and NodeUnpublishVolume alone). Called again it finds what
// it made before; ErrExists if that is another kind of volume or is mounted
// with other flags or at another target.
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
	r.ID, r.Ephemeral, r.Target = id, true, target
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

// sweep deletes the ephemeral volumes whose pods are gone for certain: they
// were unpublished while their pool was away, or their pod's directory was
// removed by hand while nothing ran here. An ephemeral volume that is only not
// mounted stays: a pod that outlives a reboot gets it back with its content.
func (s *Service) sweep(ctx context.Context) error {
	all, err := s.volumes.Ephemeral(ctx)
	if err != nil {
		return fmt.Errorf("look for ephemeral volumes: %w", err)
	}
	var errs []error
	for _, v := range all {
		if !abandoned(v.Target) {
			continue
		}
		s.log.Info("ephemeral volume of a pod that is gone", logVolume, v.ID, logTarget, v.Target)
		if err := s.discard(ctx, v.ID, v.Target); err != nil {
			errs = append(errs, fmt.Errorf("delete ephemeral volume %s: %w", v.ID, err))
		}
	}
	return errors.Join(errs...)
}

// abandoned reports whether the directory that kubelet made for a target is
// gone while kubelet's own is there: ROOT/pods/UID/volumes/DRIVER/NAME/mount.
// Kubelet keeps NAME, with a file that says what is published, until
// NodeUnpublishVolume has succeeded. A target of another shape is nobody's to
// judge.
func abandoned(target string) bool {
	root, _, found := strings.Cut(target, "/pods/")
	if !found {
		return false
	}
	if _, err := os.Stat(root + "/pods"); err != nil {
		return false
	}
	_, err := os.Lstat(filepath.Dir(target))
	return errors.Is(err, fs.ErrNotExist)
}
