package mounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Where an exposed volume on a device is: Dir/live/ID/volume.
//
// Kubelet binds whatever it finds at the path of a local or hostPath volume,
// also an empty directory over which nothing is mounted, and after a reboot it
// may do so before the agent runs or while the pool's disk is missing. So that
// path must not exist while the volume is not mounted there. Hence live is a
// filesystem in memory, which a reboot empties, and the volume is mounted
// under a hidden name, Dir/live/.ID/volume, before the directory that holds
// the mount is renamed to ID.
const (
	liveDir     = "live"
	liveOptions = "mode=0755,size=64m,nr_inodes=400k" // two inodes a volume
	memoryFS    = "tmpfs"
	leaf        = "volume"
)

// path is where an exposed volume is seen.
func (s *Service) path(id volume.ID) string { return filepath.Join(s.shown(id), leaf) }

func (s *Service) shown(id volume.ID) string { return filepath.Join(s.dir, liveDir, string(id)) }

// hidden is a name that no volume has: an ID does not begin with a dot.
func (s *Service) hidden(id volume.ID) string { return filepath.Join(s.dir, liveDir, "."+string(id)) }

// Expose gives a volume a path on this node that lasts, for local and
// hostPath volumes, which kubelet mounts without a driver: the directory in
// the pool, or the filesystem or device at a path of its own below Dir, which
// is there only while the volume is; if it was made with a path, at that one,
// which leads there. The record tells of it, so that Restore finds it after a
// reboot.
func (s *Service) Expose(ctx context.Context, id volume.ID) (string, error) {
	v, release, err := s.begin(ctx, id)
	if err != nil {
		return "", fmt.Errorf("expose volume: %w", err)
	}
	defer release()
	path, err := s.expose(ctx, v)
	if err == nil {
		path, err = s.volumes.Name(ctx, id, path)
	}
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
	if err := s.live(ctx); err != nil {
		return "", err
	}
	path := s.path(v.ID)
	there, err := s.at(path, src, v.Mode)
	if err != nil {
		return "", err
	}
	if there != nil {
		return path, s.mountExposed(ctx, v, src, path) // which grows it
	}
	// Somebody may have unmounted what was shown.
	if err := s.host.Rename(s.shown(v.ID), s.hidden(v.ID)); err != nil {
		return "", err
	}
	if err := s.mountExposed(ctx, v, src, filepath.Join(s.hidden(v.ID), leaf)); err != nil {
		return "", err
	}
	return path, s.host.Rename(s.hidden(v.ID), s.shown(v.ID))
}

func (s *Service) mountExposed(ctx context.Context, v volume.Volume, src backend.Source, path string) error {
	if v.Mode == volume.Filesystem {
		return s.mountAt(ctx, v, src, path, volume.Use{Mode: volume.Filesystem})
	}
	return s.publishDevice(src, path, volume.Use{Mode: volume.Block}, s.seenElsewhere(src, v.Mode, path))
}

// live mounts the filesystem in memory, once a boot.
func (s *Service) live(ctx context.Context) error {
	s.making.Lock()
	defer s.making.Unlock()
	dir := filepath.Join(s.dir, liveDir)
	if err := s.host.MakeDir(dir); err != nil {
		return err
	}
	all, err := s.host.Mounts()
	if err != nil {
		return err
	}
	if m := top(all, dir); m != nil {
		if m.FSType != memoryFS {
			return fmt.Errorf("%w: %s is mounted at %s, which is Plinth's", volume.ErrExists, m.Source, dir)
		}
		return nil
	}
	return s.host.Mount(ctx, memoryFS, dir, memoryFS, []string{liveOptions})
}

// seenElsewhere reports whether a volume is mounted anywhere but at path.
func (s *Service) seenElsewhere(src backend.Source, mode volume.Mode, path string) bool {
	views, err := s.views(src, mode)
	for _, view := range views {
		if view.Point != path {
			return true
		}
	}
	return err != nil
}

// Unexpose undoes Expose. ErrInUse while anybody has the volume mounted; it
// is still exposed then.
func (s *Service) Unexpose(ctx context.Context, id volume.ID) error {
	release, err := s.volumes.Hold(id)
	if err != nil {
		return fmt.Errorf("unexpose volume: %w", err)
	}
	defer release()
	if err := s.unexpose(ctx, id); err != nil {
		return fmt.Errorf("unexpose volume %s: %w", id, err)
	}
	if err := s.volumes.SetExposed(ctx, id, false); err != nil && !errors.Is(err, volume.ErrNotFound) {
		return fmt.Errorf("unexpose volume %s: %w", id, err)
	}
	return nil
}

func (s *Service) unexpose(ctx context.Context, id volume.ID) error {
	// Out of sight first: whoever comes now finds nothing to bind.
	if err := s.host.Rename(s.shown(id), s.hidden(id)); err != nil {
		return err
	}
	path := filepath.Join(s.hidden(id), leaf)
	err := s.unmountAt(ctx, id, path)
	if errors.Is(err, volume.ErrInUse) {
		return errors.Join(err, s.host.Rename(s.hidden(id), s.shown(id)))
	}
	if err != nil {
		return err
	}
	if err := s.clear(path); err != nil {
		return err
	}
	return s.clear(s.hidden(id))
}

// Restore exposes again what the records say is exposed, and deletes the
// ephemeral volumes whose pods are gone, after a start or when a pool has come
// back. Each volume is tried; the error joins those that failed.
func (s *Service) Restore(ctx context.Context) error {
	ids, err := s.volumes.Exposed(ctx)
	if err != nil {
		return fmt.Errorf("restore exposed volumes: %w", err)
	}
	errs := []error{s.sweep(ctx)}
	for _, id := range ids {
		if _, err := s.Expose(ctx, id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
