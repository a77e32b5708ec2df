package mounts

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// views are all mounts that show the whole of a volume: the staging path, the
// targets, the path where it is exposed.
func (s *Service) views(src backend.Source, mode volume.Mode) ([]mount.Mount, error) {
	all, err := s.host.Mounts()
	if err != nil {
		return nil, err
	}
	if src.Device != "" && mode == volume.Filesystem {
		major, minor, err := s.host.DeviceNumber(src.Device)
		if err != nil {
			return nil, err
		}
		return only(all, func(m mount.Mount) bool { return m.Major == major && m.Minor == minor && m.Root == "/" }), nil
	}
	// A directory of the pool, or the node of a device in /dev: a bind shows
	// the filesystem that holds it, and its path in there.
	source := src.Dir + src.Device // one of them is set
	holder := holding(all, source)
	if holder == nil {
		return nil, fmt.Errorf("%s is on no mount", source)
	}
	root := filepath.Join(holder.Root, strings.TrimPrefix(source, holder.Point))
	return only(all, func(m mount.Mount) bool {
		return m.Major == holder.Major && m.Minor == holder.Minor && m.Root == root && m.ID != holder.ID
	}), nil
}

// at gives the mount of a volume at path, nil if nothing is mounted there.
// Something else there is ErrExists, a path within the volume ErrInvalid.
func (s *Service) at(path string, src backend.Source, mode volume.Mode) (*mount.Mount, error) {
	all, err := s.host.Mounts()
	if err != nil {
		return nil, err
	}
	there := top(all, path)
	views, err := s.views(src, mode)
	if err != nil {
		return nil, err
	}
	if there == nil {
		return nil, outside(path, src, views)
	}
	for _, v := range views {
		if v.ID == there.ID {
			return there, nil
		}
	}
	return nil, fmt.Errorf("%w: %s is mounted at %s, which is not the volume", volume.ErrExists, there.Source, path)
}

// outside refuses to mount a volume within itself.
func outside(path string, src backend.Source, views []mount.Mount) error {
	places := []string{src.Dir}
	for _, v := range views {
		places = append(places, v.Point)
	}
	for _, p := range places {
		if p != "" && strings.HasPrefix(path, p+"/") {
			return fmt.Errorf("%w: %s lies within the volume, which is at %s", volume.ErrInvalid, path, p)
		}
	}
	return nil
}

// top is the mount that is seen at path, nil if path is no mount point.
func top(all []mount.Mount, path string) *mount.Mount {
	var found *mount.Mount
	for i := range all {
		if all[i].Point == path {
			found = &all[i] // a later one lies over it
		}
	}
	return found
}

// holding is the mount that path lies on.
func holding(all []mount.Mount, path string) *mount.Mount {
	var best *mount.Mount
	for i, m := range all {
		if m.Point != "/" && path != m.Point && !strings.HasPrefix(path, m.Point+"/") {
			continue
		}
		if best == nil || len(m.Point) >= len(best.Point) {
			best = &all[i]
		}
	}
	return best
}

func only(all []mount.Mount, keep func(mount.Mount) bool) []mount.Mount {
	var out []mount.Mount
	for _, m := range all {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}
