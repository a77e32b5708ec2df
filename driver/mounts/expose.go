package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Expose gives a volume a path on this node that lasts, for local and
// hostPath volumes, which kubelet mounts without a driver: the directory in
// the pool, or the filesystem or device at a path of its own below Dir. The
// record tells of it, so that Restore finds it after a reboot.
func (s *Service) Expose(ctx context.Context, id volume.ID) (string, error) {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return "", fmt.Errorf("expose volume: %w", err)
	}
	defer release()
	path, err := s.expose(ctx, v)
	if err != nil {
		return "", fmt.Errorf("expose volume %s: %w", id, err)
	}
	return path, nil
}

func (s *Service) expose(ctx context.Context, v volume.Volume) (string, error) {
	if err := s.volumes.SetExposed(ctx, v.ID, true); err != nil {
		return "", err
	}
	src, err := s.volumes.Attach(ctx, v.ID)
	if err != nil {
		return "", err
	}
	if src.Dir != "" {
		return src.Dir, nil
	}
	path := s.path(v.ID)
	if v.Mode == volume.Block {
		if err := os.MkdirAll(s.dir, 0o750); err != nil {
			return "", err
		}
		return path, s.publishDevice(src, path, volume.Use{Mode: volume.Block}, s.seenElsewhere(src, v.Mode, path))
	}
	return path, s.mountAt(ctx, v, src, path, volume.Use{Mode: volume.Filesystem})
}

// seenElsewhere reports whether a volume is mounted anywhere but at path.
func (s *Service) seenElsewhere(src backend.Source, mode volume.Mode, path string) bool {
	views, err := s.views(src, mode)
	for _, view := range views {
		if view.Point != resolved(path) {
			return true
		}
	}
	return err != nil
}

// Unexpose undoes Expose. ErrInUse while anybody has the volume mounted.
func (s *Service) Unexpose(ctx context.Context, id volume.ID) error {
	release, err := s.volumes.Hold(id)
	if err != nil {
		return fmt.Errorf("unexpose volume: %w", err)
	}
	defer release()
	if err := s.unmountAt(ctx, id, s.path(id)); err != nil {
		return fmt.Errorf("unexpose volume %s: %w", id, err)
	}
	if err := s.clear(s.path(id)); err != nil {
		return fmt.Errorf("unexpose volume %s: %w", id, err)
	}
	if err := s.volumes.SetExposed(ctx, id, false); err != nil && !errors.Is(err, volume.ErrNotFound) {
		return fmt.Errorf("unexpose volume %s: %w", id, err)
	}
	return nil
}

// Restore exposes again what the records say is exposed, after a reboot or
// when a pool has come back. Each volume is tried; the error joins those that
// failed.
func (s *Service) Restore(ctx context.Context) error {
	ids, err := s.volumes.Exposed(ctx)
	if err != nil {
		return fmt.Errorf("restore exposed volumes: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if _, err := s.Expose(ctx, id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Service) path(id volume.ID) string { return filepath.Join(s.dir, string(id)) }
