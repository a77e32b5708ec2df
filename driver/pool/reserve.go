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
// on its file. What a glance refuses a survey decides.
func (p *pool) promise(ctx context.Context, r record, more int64) error {
	g, err := p.glance(ctx)
	if err != nil {
		return err
	}
	if err = p.promiseOn(g, r, more); !errors.Is(err, volume.ErrNoCapacity) {
		return err
	}
	if g, err = p.survey(ctx); err != nil {
		return err
	}
	return p.promiseOn(g, r, more)
}

func (p *pool) promiseOn(g ground, r record, more int64) error {
	if p.cfg.Shared {
		return p.promiseShared(g, r, more)
	}
	id := r.Spec.ID
	if err := p.claim(g, r, more); err != nil {
		return err
	}
	err := p.records.put(r)
	p.reserving.Lock()
	defer p.reserving.Unlock()
	delete(p.pending, id) // the record tells of it now, or nothing does
	return err
}

// claim sets bytes aside that no record tells of yet.
func (p *pool) claim(g ground, r record, more int64) error {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	promised, _, err := p.records.promised(p.pending)
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
	promised, _, err := p.records.promised(nil)
	if err != nil {
		return err
	}
	if err := p.fits(g, promised, more); err != nil {
		return err
	}
	return p.records.put(r)
}

// promised is what all volumes have been promised, in bytes, and how many
// volumes that is.
func (p *pool) promised() (sum int64, volumes int, err error) {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	return p.records.promised(p.pending)
}

func (p *pool) fits(g ground, promised, more int64) error {
	if room := available(*p.terms.Load(), g, promised); more > room {
		return fmt.Errorf("%w: pool %s: %d bytes asked, %d available", volume.ErrNoCapacity, p.cfg.Name, more, room)
	}
	return nil
}
