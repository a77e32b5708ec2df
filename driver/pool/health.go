package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The reasons why a volume is not well, for machines.
const (
	ReasonPoolUnavailable = "PoolUnavailable"  // it is, or may be, in a pool that does not serve
	ReasonRecord          = "RecordUnreadable" // its record cannot be used
	ReasonNoData          = "DataMissing"      // its record is there and its data is not
	ReasonData            = "DataUnreadable"   // its data cannot be looked at
	ReasonUnfinished      = "WorkUnfinished"   // what was begun on it could not be finished
)

// Health says how well a volume is, from the pool's identity guard, its record
// and its data as they are on disk now. ErrNotFound if there certainly is no
// such volume; while a pool does not serve, one that is found nowhere may be
// in it and is Inaccessible.
func (m *Manager) Health(ctx context.Context, id volume.ID) (volume.Health, error) {
	f, err := m.find(id)
	switch {
	case errors.Is(err, volume.ErrPoolUnavailable):
		return volume.Health{ID: id, State: volume.Inaccessible, Reason: ReasonPoolUnavailable, Message: err.Error()}, nil
	case err != nil:
		return volume.Health{}, err
	}
	defer f.release()
	return f.pool.health(ctx, f.entry)
}

// Unhealthy are the volumes of all pools that serve which are not well,
// sorted by ID. What is wrong with a pool as a whole is in its status.
func (m *Manager) Unhealthy(ctx context.Context) ([]volume.Health, error) {
	var out []volume.Health
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			continue
		}
		ill, err := p.unhealthy(ctx)
		release()
		if err != nil {
			return nil, fmt.Errorf("health of pool %s: %w", s.cfg.Name, err)
		}
		out = append(out, ill...)
	}
	slices.SortFunc(out, func(a, b volume.Health) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (p *pool) unhealthy(ctx context.Context) ([]volume.Health, error) {
	entries, err := p.records.all()
	if err != nil {
		return nil, err
	}
	infos, err := p.backend.List(ctx)
	if err != nil {
		return nil, err
	}
	there := map[volume.ID]bool{}
	for _, i := range infos {
		there[i.ID] = true
	}
	var out []volume.Health
	for _, e := range entries {
		id := e.Spec.ID
		if there[id] && e.broken == "" && p.problems.about(string(id)) == "" {
			continue
		}
		// It may have been deleted since it was listed: look again.
		e, err := p.records.get(id)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		h, err := p.health(ctx, e)
		if err != nil && !errors.Is(err, volume.ErrNotFound) {
			return nil, err
		}
		if err == nil && h.State != volume.Healthy {
			out = append(out, h)
		}
	}
	return out, nil
}

// health is that of one volume; ErrNotFound while it is being made or deleted.
func (p *pool) health(ctx context.Context, e entry) (volume.Health, error) {
	h := volume.Health{ID: e.Spec.ID}
	if e.broken != "" {
		h.State, h.Reason = volume.Inaccessible, ReasonRecord
		h.Message = fmt.Sprintf("the record in pool %s cannot be used: %s; put it right or restore it", p.cfg.Name, e.broken)
		return h, nil
	}
	if e.State != ready {
		return h, fmt.Errorf("volume %s is %s: %w", h.ID, e.State, volume.ErrNotFound)
	}
	_, err := p.backend.Get(ctx, h.ID)
	switch problem := p.problems.about(string(h.ID)); {
	case errors.Is(err, volume.ErrNotFound):
		h.State, h.Reason = volume.DataLost, ReasonNoData
		h.Message = fmt.Sprintf("pool %s has its record and no data; restore the data, or delete the volume", p.cfg.Name)
	case err != nil:
		h.State, h.Reason, h.Message = volume.Inaccessible, ReasonData, err.Error()
	case problem != "":
		h.State, h.Reason, h.Message = volume.Degraded, ReasonUnfinished, problem
	}
	return h, nil
}

// about is the problem that is known of a volume; "" if none is.
func (p *problems) about(what string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[what]
}
