package pool

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// line is one pool of the file, under a name of its own.
type line struct {
	number int
	name   string
	slot   *slot             // nil: the file says it and it is not done
	status volume.PoolStatus // without a slot
}

// lines are all pools of the file, in its order. No disk is touched.
func (m *Manager) lines() []line {
	var lines []line
	taken := map[string]bool{}
	for _, s := range m.slots() {
		taken[s.cfg.Name] = true
		lines = append(lines, line{number: s.cfg.Line, name: s.cfg.Name, slot: s})
	}
	for _, r := range m.refused() {
		name := r.Name
		if name == "" {
			name = fmt.Sprintf("(line %d)", r.Line)
		} else if taken[name] {
			name = fmt.Sprintf("%s (line %d)", name, r.Line)
		}
		taken[name] = true
		lines = append(lines, line{number: r.Line, name: name, status: volume.PoolStatus{
			Name: name, Path: r.Path, State: volume.PoolUnavailable, Reason: r.Reason, Message: r.Error(),
		}})
	}
	if fault := m.plan.Load().fault; fault != "" {
		lines = append(lines, line{name: fileName, status: volume.PoolStatus{
			Name: fileName, State: volume.PoolUnavailable, Reason: ReasonConfig, Message: fault,
		}})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.number, b.number) })
	return lines
}

// Pools is the state of every pool of the file, in its order, each under a
// name of its own: what the file says and is not done of a pool that another
// has the name of, or that has none, is called by its line, and a file that
// cannot be read as a whole by its own name.
func (m *Manager) Pools(ctx context.Context) []volume.PoolStatus {
	var out []volume.PoolStatus
	for _, l := range m.lines() {
		if l.slot != nil {
			l.status = l.slot.status(ctx)
		}
		out = append(out, l.status)
	}
	return out
}

func (s *slot) status(ctx context.Context) volume.PoolStatus {
	p, release, err := s.use()
	if err != nil {
		return s.faulty(err)
	}
	defer release()
	return p.status(ctx, p.recent)
}

// faulty is the status of a pool that does not serve.
func (s *slot) faulty(err error) volume.PoolStatus {
	fault := asFault(s.cfg, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	return volume.PoolStatus{Name: s.cfg.Name, Path: s.cfg.Path, Shared: s.cfg.Shared, State: volume.PoolUnavailable,
		Reason: fault.Reason, Message: fault.text(), UUID: s.known} // whoever reports it does not forget it
}

func (p *pool) status(ctx context.Context, look func(context.Context) (ground, error)) volume.PoolStatus {
	a := p.backend.Abilities()
	st := volume.PoolStatus{Name: p.cfg.Name, Path: p.cfg.Path, Shared: p.cfg.Shared, State: volume.PoolUnavailable,
		Backend: p.kind, UUID: p.guard.uuid, Modes: a.Modes, FSTypes: a.FSTypes, Abilities: p.abilities(a)}
	if err := p.measure(ctx, look, &st); err != nil {
		st.Reason, st.Message = ReasonIO, err.Error()
		return st
	}
	st.State = volume.PoolReady
	if st.Message = p.report(ctx); st.Message != "" {
		st.Reason = "Problems"
	}
	return st
}

// abilities are what only some pools can do.
func (p *pool) abilities(a backend.Abilities) []volume.Ability {
	_, scrub := p.scrubber()
	var out []volume.Ability
	for _, can := range []struct {
		it   volume.Ability
		does bool
	}{{volume.AbleThick, a.Thick}, {volume.AbleScrub, scrub == nil}, {volume.AbleAttributes, a.Attributes}} {
		if can.does {
			out = append(out, can.it)
		}
	}
	return out
}

// measure fills in the sizes of a pool.
func (p *pool) measure(ctx context.Context, look func(context.Context) (ground, error), st *volume.PoolStatus) error {
	g, err := look(ctx)
	if err != nil {
		return err
	}
	promised, volumes, err := p.promised()
	if err != nil {
		return err
	}
	st.Total, st.Free, st.Enforced, st.Volumes = g.capacity.Total, g.capacity.Free, g.capacity.Enforced, volumes
	st.Reserved, st.Available = promised, available(*p.terms.Load(), g, promised)
	st.MaxVolume = largest(g, st.Available)
	return nil
}

// Space says what could be provisioned now for such a request; its name and
// size do not matter. It is an error only if the request could never be met
// here for a reason that is not space.
func (m *Manager) Space(ctx context.Context, req volume.Request) (volume.Space, error) {
	req.Size, req.LimitBytes = 0, 0
	var total volume.Space
	asked := splitNames(req.Pool)
	for _, s := range m.slots() {
		if len(asked) > 0 && !slices.Contains(asked, s.cfg.Name) {
			continue
		}
		c, err := m.candidate(ctx, s, req, (*pool).survey)
		if err != nil {
			if ctx.Err() != nil {
				return volume.Space{}, err
			}
			continue // this pool has no space for such a request
		}
		if total.Available == 0 || c.space.Min < total.Min {
			total.Min = c.space.Min
		}
		total.Available += c.space.Available
		total.Max = max(total.Max, c.space.Max)
	}
	return total, nil
}
