package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/plinth-csi/plinth/driver/host/filelock"
	"github.com/plinth-csi/plinth/driver/volume"
)

// available is what can be promised beyond the promised bytes
// (docs/design.md, "What can be provisioned").
func available(cfg PoolConfig, g ground, promised int64) int64 {
	c := g.capacity
	if c.Whole {
		return c.Free
	}
	if !c.Enforced {
		return max(0, c.Free-cfg.Reserve.Of(c.Total))
	}
	room := float64(c.Total-cfg.Reserve.Of(c.Total)-g.foreign) * cfg.Overcommit
	if room >= math.MaxInt64 {
		return math.MaxInt64 - promised
	}
	return max(0, int64(room)-promised)
}

// largest is the largest single volume that fits.
func largest(g ground, available int64) int64 {
	if g.capacity.Whole {
		return g.capacity.LargestFree
	}
	if g.capacity.MaxVolume > 0 {
		available = min(available, g.capacity.MaxVolume)
	}
	if available < g.capacity.MinVolume {
		return 0
	}
	return available
}

// promise reserves more bytes for a volume and writes its record r, which
// tells of them.
func (p *pool) promise(ctx context.Context, r record, more int64) error {
	return p.reserve(ctx, reservation{p.pending.volumes, r.Spec.ID, r.reserved(), more, r.Path, func() error { return p.records.announce(r) }})
}

// promiseSnapshot is promise for a snapshot.
func (p *pool) promiseSnapshot(ctx context.Context, r snapshotRecord, more int64) error {
	return p.reserve(ctx, reservation{p.pending.snapshots, r.ID, r.reserved(), more, "", func() error { return p.snaps.put(r) }})
}

// pending is all that is promised, bytes and paths, to what has no record that
// tells of it yet.
type pending struct {
	volumes, snapshots map[volume.ID]int64
	paths              map[volume.ID]volume.Path
}

// reservation is bytes, and a volume's path, that are to be promised.
type reservation struct {
	among     map[volume.ID]int64 // of pending
	id        volume.ID
	all, more int64        // bytes, together and beyond what it has
	path      volume.Path  // "" is none
	write     func() error // writes the record that tells of all
}

// reserve promises bytes. It is atomic per pool, whatever goes on at the same
// time: in this process by p.reserving, among the nodes of a shared pool by a
// lock on its file. What a glance refuses a survey decides.
func (p *pool) reserve(ctx context.Context, r reservation) error {
	g, err := p.glance(ctx)
	if err != nil {
		return err
	}
	if err = p.reserveOn(g, r); !errors.Is(err, volume.ErrNoCapacity) {
		return err
	}
	if g, err = p.survey(ctx); err != nil {
		return err
	}
	return p.reserveOn(g, r)
}

func (p *pool) reserveOn(g ground, r reservation) error {
	if p.cfg.Shared {
		return p.reserveShared(g, r)
	}
	if err := p.claim(g, r); err != nil {
		return err
	}
	err := r.write()
	p.reserving.Lock()
	defer p.reserving.Unlock()
	delete(r.among, r.id) // the record tells of it now, or nothing does
	delete(p.pending.paths, r.id)
	return err
}

// claim sets bytes aside that no record tells of yet.
func (p *pool) claim(g ground, r reservation) error {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	promised, _, err := p.sum()
	if err != nil {
		return err
	}
	if err := errors.Join(p.fits(g, promised, r.more), p.pathFree(r)); err != nil {
		return err
	}
	r.among[r.id] = r.all
	if r.path != "" {
		p.pending.paths[r.id] = r.path
	}
	return nil
}

func (p *pool) reserveShared(g ground, r reservation) (err error) {
	f, err := p.root.OpenFile(lockFile, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }() // which unlocks
	if err := filelock.Wait(f, filelock.Whole); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	promised, _, err := p.sum()
	if err != nil {
		return err
	}
	if err := errors.Join(p.fits(g, promised, r.more), p.pathFree(r)); err != nil {
		return err
	}
	return r.write()
}

// promised is what all volumes and snapshots have been promised, in bytes, and
// how many volumes there are.
func (p *pool) promised() (sum int64, volumes int, err error) {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	return p.sum()
}

// sum is promised while p.reserving, or the lock of a shared pool, is held.
func (p *pool) sum() (sum int64, volumes int, err error) {
	sum, volumes, err = p.records.promised(p.pending.volumes)
	if err != nil {
		return 0, 0, err
	}
	snapshots, _, err := p.snaps.promised(p.pending.snapshots)
	return sum + snapshots, volumes, err
}

func (p *pool) fits(g ground, promised, more int64) error {
	if room := available(*p.terms.Load(), g, promised); more > room {
		return fmt.Errorf("%w: pool %s: %d bytes asked, %d available", volume.ErrNoCapacity, p.cfg.Name, more, room)
	}
	return nil
}
