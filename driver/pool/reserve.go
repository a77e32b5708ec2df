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

// ground is what a pool's filesystem holds, at one moment.
type ground struct {
	capacity volume.Capacity
	foreign  int64 // bytes held by anything but Plinth's volumes
}

// survey reads the ground. It takes as long as the backend takes to list.
func (p *pool) survey(ctx context.Context) (ground, error) {
	// The volumes first: one that is made in between then counts as foreign
	// and not as nothing.
	infos, err := p.backend.List(ctx)
	if err != nil {
		return ground{}, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	c, err := p.backend.Capacity(ctx)
	if err != nil {
		return ground{}, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	foreign := c.Total - c.Free
	for _, i := range infos {
		foreign -= max(0, i.Allocated)
	}
	return ground{capacity: c, foreign: max(0, foreign)}, nil
}

// available is what can be promised beyond the promised bytes
// (docs/design.md, "What can be provisioned").
func available(cfg PoolConfig, g ground, promised int64) int64 {
	c := g.capacity
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
	if g.capacity.MaxVolume > 0 {
		available = min(available, g.capacity.MaxVolume)
	}
	if available < g.capacity.MinVolume {
		return 0
	}
	return available
}

// promise reserves more bytes for a volume and writes its record r, which
// tells of them. It is atomic per pool, whatever goes on at the same time:
// in this process by p.reserving, among the nodes of a shared pool by a lock
// on its file.
func (p *pool) promise(ctx context.Context, r record, more int64) error {
	g, err := p.survey(ctx)
	if err != nil {
		return err
	}
	if p.cfg.Shared {
		return p.promiseShared(g, r, more)
	}
	id := r.Spec.ID
	if err := p.claim(g, r, more); err != nil {
		return err
	}
	err = p.records.put(r)
	p.reserving.Lock()
	defer p.reserving.Unlock()
	delete(p.pending, id) // the record tells of it now, or nothing does
	return err
}

// claim sets bytes aside that no record tells of yet.
func (p *pool) claim(g ground, r record, more int64) error {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	promised, err := p.promised()
	if err != nil {
		return err
	}
	if err := p.fits(g, promised, more); err != nil {
		return err
	}
	p.pending[r.Spec.ID] = r.reserved()
	return nil
}

func (p *pool) promiseShared(g ground, r record, more int64) (err error) {
	f, err := p.root.OpenFile(lockFile, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }() // which unlocks
	if err := filelock.Wait(f, filelock.Whole); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	promised, err := p.promised()
	if err != nil {
		return err
	}
	if err := p.fits(g, promised, more); err != nil {
		return err
	}
	return p.records.put(r)
}

// promised is the sum of all reservations; p.reserving is held. A volume whose record cannot be
// read counts with what could be read of it.
func (p *pool) promised() (int64, error) {
	entries, err := p.records.all()
	if err != nil {
		return 0, err
	}
	var sum int64
	written := map[volume.ID]int64{}
	for _, e := range entries {
		written[e.Spec.ID] = e.reserved()
		sum += e.reserved()
	}
	for id, bytes := range p.pending {
		sum += max(0, bytes-written[id])
	}
	return sum, nil
}

func (p *pool) fits(g ground, promised, more int64) error {
	if room := available(p.cfg, g, promised); more > room {
		return fmt.Errorf("%w: pool %s: %d bytes asked, %d available", volume.ErrNoCapacity, p.cfg.Name, more, room)
	}
	return nil
}
