package pool

import (
	"context"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// Gauge reads one pool, for somebody who looks again and again: it runs no
// command and walks no volume. On a disk that hangs it hangs, whatever its
// context says, so that each is read apart from the others.
type Gauge struct {
	Pool string // its name, as Pools has it
	Read func(ctx context.Context) Reading
}

// Reading is what a pool and its volumes hold.
type Reading struct {
	Pool    volume.PoolStatus
	Volumes []VolumeReading // none if the pool does not serve
}

// VolumeReading is what a volume holds.
type VolumeReading struct {
	volume.Volume
	// Usage is nil where that cannot be told cheaply: in a pool without limits
	// it takes a walk, and of a Block volume nobody knows.
	Usage *volume.Usage
}

// Gauges are all pools of the file, in its order. To make them touches no disk.
func (m *Manager) Gauges() []Gauge {
	lines := m.lines()
	out := make([]Gauge, 0, len(lines))
	for _, l := range lines {
		read := func(context.Context) Reading { return Reading{Pool: l.status} }
		if l.slot != nil {
			read = l.slot.read
		}
		out = append(out, Gauge{Pool: l.name, Read: read})
	}
	return out
}

// read reads what the slot's pool and its volumes hold.
func (s *slot) read(ctx context.Context) Reading {
	p, release, err := s.use()
	if err != nil {
		return Reading{Pool: s.faulty(err)}
	}
	defer release()
	r := Reading{Pool: p.status(ctx, p.glimpse)}
	if r.Pool.State != volume.PoolReady {
		return r
	}
	if r.Volumes, err = p.readVolumes(ctx); err != nil {
		r.Pool.State, r.Pool.Reason, r.Pool.Message = volume.PoolUnavailable, ReasonIO, err.Error()
	}
	return r
}

func (p *pool) readVolumes(ctx context.Context) ([]VolumeReading, error) {
	entries, err := p.records.all()
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	places, err := p.places(ctx)
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	var out []VolumeReading
	for _, e := range entries {
		if e.broken != "" || e.State != ready {
			continue
		}
		r := VolumeReading{Volume: e.volume(p.node)}
		if p.backend.Abilities().Counted && r.Mode == volume.Filesystem {
			// One that has just been removed, or lost its data, has no reading;
			// what is wrong with it is the business of its health.
			at := places[r.ID]
			if u, err := p.backend.Usage(ctx, r.ID, at.point); err == nil && at.holds() {
				r.Usage = &u
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// seenAt is where the filesystem on a device is mounted; zero if nowhere.
type seenAt struct {
	point        string
	major, minor int
}

// holds says whether the filesystem is still there, and what was read of it
// not read of what lies below.
func (s seenAt) holds() bool {
	var st unix.Stat_t
	return s.point == "" || unix.Stat(s.point, &st) == nil && st.Dev == unix.Mkdev(uint32(s.major), uint32(s.minor))
}

// places says where the filesystems of volumes on devices are mounted.
func (p *pool) places(ctx context.Context) (map[volume.ID]seenAt, error) {
	locator, ok := p.backend.(backend.Locator)
	if !ok {
		return nil, nil
	}
	devices, err := locator.Devices(ctx)
	if err != nil || len(devices) == 0 {
		return nil, err
	}
	mounts, err := mount.List()
	if err != nil {
		return nil, err
	}
	type number struct{ major, minor int }
	points := map[number]string{}
	for _, m := range mounts {
		if m.Root == "/" { // the whole filesystem, and not a directory of it
			points[number{m.Major, m.Minor}] = m.Point
		}
	}
	out := map[volume.ID]seenAt{}
	for id, path := range devices {
		// Without a number it was detached meanwhile.
		if major, minor, err := device.Number(path); err == nil && points[number{major, minor}] != "" {
			out[id] = seenAt{points[number{major, minor}], major, minor}
		}
	}
	return out, nil
}
