package pool

import (
	"errors"
	"slices"
	"sync"
)

// plan is what the pools file says, and what became of what it said before. It
// is replaced as a whole, never changed.
type plan struct {
	slots   []*slot   // in the order of the file
	refused []Refusal // what it says and is not done; a pool of that name may go on as it was
	fault   string    // why the file cannot be read; the rest is what it said before
}

func (m *Manager) slots() []*slot { return m.plan.Load().slots }

func (m *Manager) refused() []Refusal { return m.plan.Load().refused }

// slot finds the slot of a name; nil if there is none.
func (m *Manager) slot(name string) *slot { return m.plan.Load().slot(name) }

func (p *plan) slot(name string) *slot {
	i := slices.IndexFunc(p.slots, func(s *slot) bool { return s.cfg.Name == name })
	if i < 0 {
		return nil
	}
	return p.slots[i]
}

// slot is one configured pool, open or not.
type slot struct {
	cfg PoolConfig
	*place
}

// place is where a pool serves. The slots that one pool has one after the
// other, while the file changes, have the same.
type place struct {
	mu    sync.Mutex
	pool  *pool  // nil while it does not serve
	fault *Fault // why it does not
	known string // the UUID that was last served there
}

func newSlot(cfg PoolConfig, known string) *slot {
	return &slot{cfg: cfg, place: &place{known: known, fault: cfg.fault(ReasonIO, "not opened yet")}}
}

// use gives the pool to an operation, after checking that it is still what it
// was. release ends the operation. A pool beside an error is one that is open
// and must not be touched.
func (s *slot) use() (p *pool, release func(), err error) {
	s.mu.Lock()
	p = s.pool
	if p == nil {
		defer s.mu.Unlock()
		return nil, nil, s.fault
	}
	p.uses.Add(1)
	s.mu.Unlock()
	if reason, message := p.guard.check(); reason != "" {
		p.uses.Done()
		return p, nil, s.cfg.fault(reason, "%s", message)
	}
	return p, p.uses.Done, nil
}

// detach takes the pool out of service and returns it.
func (s *slot) detach(fault *Fault) *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pool
	if fault == nil {
		fault = s.cfg.fault(ReasonIO, "closed")
	}
	s.pool, s.fault = nil, fault
	return p
}

// lastKnown is the UUID that was last served there, "" if none ever was.
func (s *slot) lastKnown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

func asFault(cfg PoolConfig, err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return cfg.fault(ReasonIO, "%v", err)
}
