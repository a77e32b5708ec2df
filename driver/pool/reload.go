package pool

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// fileName is what a status calls the pools file, where others call a pool.
const fileName = "(pools file)"

// Reload takes over a changed pools file while the pools serve. New pools are
// opened. What may change at once does: reserve, overcommit, requireMount;
// quotaGrace does when the pool is opened next. A
// pool that is no longer in the file is let go; if it has volumes they stay
// mounted, are unavailable, and its status says so. A pool that has volumes
// keeps its path, backend, quota and shared, and one whose entry is now wrong
// keeps all that it had; their status says what the file says and why that is
// not done. It is nothing to be told the same twice.
func (m *Manager) Reload(ctx context.Context, cfg Config) {
	m.reopening.Lock()
	defer m.reopening.Unlock()
	before, next := m.plan.Load(), &plan{}
	kept := map[string]bool{}
	for _, r := range cfg.Refused {
		m.opts.Log.Warn("pool refused", logPool, r.Name, logReason, r.Reason, logError, r.Error())
		old := before.slot(r.Name)
		if old == nil || r.Reason == ReasonDuplicate || !old.serves() {
			next.refused = append(next.refused, r)
			continue
		}
		kept[r.Name] = true
		r.Message += "; until then the pool goes on as it was"
		next.keep(old, r)
	}
	for _, c := range cfg.Pools {
		if old := before.slot(c.Name); old != nil && !kept[c.Name] {
			kept[c.Name] = true
			m.change(next, old, c)
		}
	}
	for _, c := range cfg.Pools {
		if kept[c.Name] {
			continue
		}
		if r := clash(next.configs(), c); r != nil { // with one that has not gone where the file wants it
			r.Name, r.Path = c.Name, c.Path
			next.refused = append(next.refused, *r)
			continue
		}
		next.slots = append(next.slots, newSlot(c, before.forgotten(c.Name)))
	}
	for _, s := range before.slots {
		if !kept[s.cfg.Name] {
			next.refused = append(next.refused, m.drop(s)...)
		}
	}
	for _, r := range before.refused { // what was dropped before stays so until it is back
		if r.Reason == ReasonRemoved && next.slot(r.Name) == nil {
			next.refused = append(next.refused, r)
		}
	}
	slices.SortStableFunc(next.slots, func(a, b *slot) int { return a.cfg.Line - b.cfg.Line })
	m.plan.Store(next)
	m.opts.Log.Info("pools file read", logPool, m.names())
	for _, s := range next.slots {
		m.reopen(ctx, s)
	}
	m.recoverGroups(ctx)
	m.poke() // the watch tries again what does not serve
}

// ReloadFailed says that the pools file cannot be read, for err. The pools go on
// as they are.
func (m *Manager) ReloadFailed(err error) {
	m.reopening.Lock()
	defer m.reopening.Unlock()
	next := *m.plan.Load()
	next.fault = err.Error() + "; the pools go on as they were"
	m.plan.Store(&next)
	m.opts.Log.Error("pools file refused", logError, err)
}

// change puts a pool into the plan as the file now says, or as it was.
func (m *Manager) change(next *plan, old *slot, cfg PoolConfig) {
	p, release, err := old.use()
	if err != nil {
		// Whatever is served next is compared with what was served last.
		next.slots = append(next.slots, &slot{cfg: cfg, place: old.place})
		return
	}
	defer release()
	moved := moves(p, cfg)
	if moved == "" && !slices.Equal(p.cfg.Devices, cfg.Devices) {
		// Volumes keep their disks whatever the list says of them.
		m.letGo(old, cfg.fault(ReasonIO, "%s have changed; the pool is opened again", keyDevices))
		next.slots = append(next.slots, newSlot(cfg, p.guard.uuid))
		return
	}
	if moved == "" {
		p.terms.Store(&cfg)
		if fault := checkPath(cfg); fault != nil { // requireMount may be new
			m.opts.Log.Warn("pool lost", logPool, cfg.Name, logReason, fault.Reason, logError, fault.Error())
			m.letGo(old, fault)
		}
		next.slots = append(next.slots, &slot{cfg: cfg, place: old.place})
		return
	}
	_, volumes, err := p.promised()
	switch {
	case err != nil:
		next.keep(old, Refusal{Name: cfg.Name, Path: cfg.Path, Line: cfg.Line, Reason: ReasonConfig, Message: fmt.Sprintf(
			"%s, and what volumes the pool has cannot be read (%v); it goes on as it was", moved, err)})
	case volumes > 0:
		next.keep(old, Refusal{Name: cfg.Name, Path: cfg.Path, Line: cfg.Line, Reason: ReasonConfig, Message: fmt.Sprintf(
			"%s, and the pool has %d volumes; it goes on as it was. Write what was there, or add a pool of another name", moved, volumes)})
	default:
		m.letGo(old, cfg.fault(ReasonIO, "%s; the pool is opened again", moved))
		known := ""
		if cfg.Path == old.cfg.Path {
			known = p.guard.uuid
		}
		next.slots = append(next.slots, newSlot(cfg, known))
	}
}

// keep puts a pool into the plan as it was, and what the file says beside it.
func (p *plan) keep(s *slot, r Refusal) {
	cfg := s.cfg
	cfg.Line = r.Line
	p.slots = append(p.slots, &slot{cfg: cfg, place: s.place})
	p.refused = append(p.refused, r)
}

// moves says in what the file is about another place than the open pool; "" if
// in nothing.
func moves(p *pool, cfg PoolConfig) string {
	var out []string
	says := func(key string, was, is any) {
		out = append(out, fmt.Sprintf("%s was %v and is %v in the file", key, was, is))
	}
	if was := p.cfg.Path; was != cfg.Path {
		says(keyPath, was, cfg.Path)
	}
	if cfg.Backend != BackendAuto && cfg.Backend != p.kind {
		says(keyBackend, p.kind, cfg.Backend)
	}
	if was := p.cfg.Quota; was != cfg.Quota {
		says(keyQuota, was, cfg.Quota)
	}
	if was := p.cfg.Shared; was != cfg.Shared {
		says(keyShared, was, cfg.Shared)
	}
	return strings.Join(out, ", ")
}

// drop lets go of a pool that is no longer in the file. If it may have volumes
// it stays among the refused, so that nobody takes them for gone.
func (m *Manager) drop(s *slot) []Refusal {
	m.opts.Log.Info("pool removed from the file", logPool, s.cfg.Name)
	volumes, err := s.volumes()
	gone := s.cfg
	gone.Line = 0
	fault := gone.fault(ReasonRemoved, "it is no longer in the pools file and has %d volumes, which stay mounted and are unavailable; put it back", volumes)
	if err != nil {
		fault = gone.fault(ReasonRemoved, "it is no longer in the pools file and did not serve before (%v), so it may have volumes; put it back", err)
	}
	m.letGo(s, fault)
	if s.lastKnown() == "" || err == nil && volumes == 0 {
		return nil
	}
	m.opts.Log.Warn("pool removed with its volumes", logPool, s.cfg.Name, logReason, fault.Reason, logError, fault.Error())
	return []Refusal{{Name: s.cfg.Name, Path: s.cfg.Path, Reason: fault.Reason, Message: fault.Message, known: s.lastKnown()}}
}

// forgotten is the UUID of a pool that was dropped before, "" if none was.
func (p *plan) forgotten(name string) string {
	for _, r := range p.refused {
		if r.Name == name && r.known != "" {
			return r.known
		}
	}
	return ""
}

func (p *plan) configs() []PoolConfig {
	var out []PoolConfig
	for _, s := range p.slots {
		out = append(out, s.cfg)
	}
	return out
}

// serves reports whether the pool is open.
func (s *slot) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pool != nil
}

// volumes counts the records of a pool that serves.
func (s *slot) volumes() (int, error) {
	p, release, err := s.use()
	if err != nil {
		return 0, err
	}
	defer release()
	_, volumes, err := p.promised()
	return volumes, err
}
