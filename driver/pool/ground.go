package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// ground is what a pool's filesystem holds, at one moment.
type ground struct {
	capacity volume.Capacity
	foreign  int64 // bytes held by anything but Plinth's volumes
}

// How old the last survey may be for a glance, and for a status. One that took
// long is used for longer, so that surveys take a small part of the time.
const (
	glanceAge = time.Minute
	statusAge = time.Second
	ageFactor = 20 // times as long as the survey took
)

// seen is what the last survey saw, kept up to date with what Plinth itself
// makes and removes.
type seen struct {
	mu      sync.Mutex
	at      time.Time // zero before the first survey
	took    time.Duration
	foreign int64
	held    map[string]int64 // bytes, by key
	sum     int64            // of held

	surveys int                 // under way
	gone    map[string]struct{} // removed while any is under way
}

// survey reads the ground. It takes as long as the backend takes to list.
func (p *pool) survey(ctx context.Context) (ground, error) {
	c, err := p.backend.Capacity(ctx)
	if err != nil {
		return ground{}, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	if c.Whole {
		p.disks.Store(&c)
	}
	if !c.Enforced || c.Whole {
		return ground{capacity: c}, nil // what is free is what counts
	}
	began := p.seen.begin()
	// What is Plinth's first: one that is made in between then counts as
	// foreign and not as nothing.
	held, err := p.holdings(ctx)
	if err == nil {
		c, err = p.backend.Capacity(ctx)
	}
	if err != nil {
		p.seen.cancel()
		return ground{}, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	return ground{capacity: c, foreign: p.seen.end(began, held, c.Total-c.Free)}, nil
}

// glance is a survey that is cheap: what volumes hold is known from the last
// one. It is never more hopeful than that survey was about foreign bytes, and
// less so by what volumes have taken since: only its refusal needs a survey.
func (p *pool) glance(ctx context.Context) (ground, error) { return p.look(ctx, glanceAge) }

// recent is a glance for somebody who reports what is there.
func (p *pool) recent(ctx context.Context) (ground, error) { return p.look(ctx, statusAge) }

// glimpse is recent for somebody who looks again and again. Of whole disks it
// is what was seen last: to see what is on those that are free takes commands.
func (p *pool) glimpse(ctx context.Context) (ground, error) {
	if c := p.disks.Load(); c != nil {
		return ground{capacity: *c}, nil
	}
	return p.recent(ctx)
}

func (p *pool) look(ctx context.Context, age time.Duration) (ground, error) {
	if !p.seen.within(age) {
		return p.survey(ctx)
	}
	c, err := p.backend.Capacity(ctx)
	if err != nil {
		return ground{}, fmt.Errorf("pool %s: %w", p.cfg.Name, err)
	}
	return ground{capacity: c, foreign: p.seen.estimate(c.Total - c.Free)}, nil
}

func (s *seen) begin() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.surveys == 0 {
		s.gone = map[string]struct{}{}
	}
	s.surveys++
	return time.Now()
}

func (s *seen) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surveys--
}

// end takes over what a survey has seen; used is what the filesystem holds. It
// returns the foreign bytes. What was removed meanwhile may be in held and not
// in used, so it is left out.
func (s *seen) end(began time.Time, held map[string]int64, used int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surveys--
	var sum int64
	for key, bytes := range held {
		if _, gone := s.gone[key]; gone {
			delete(held, key)
			continue
		}
		sum += bytes
	}
	foreign := max(0, used-sum)
	if began.After(s.at) { // of two surveys at once the later counts
		s.at, s.took, s.foreign, s.held, s.sum = began, time.Since(began), foreign, held, sum
	}
	return foreign
}

func (s *seen) within(age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.at.IsZero() && time.Since(s.at) < max(age, ageFactor*s.took)
}

// estimate is what of the used bytes is not known to be Plinth's. Bytes that
// volumes gave back since the last survey must not hide foreign ones, so it is
// never less than what that survey found.
func (s *seen) estimate(used int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.foreign, used-s.sum)
}

// made is told of what was made and shares its bytes with nobody.
func (s *seen) made(key string, allocated int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		bytes := max(0, allocated)
		s.sum += bytes - s.held[key]
		s.held[key] = bytes
	}
}

// removed is told of what is gone with the bytes that only it held.
func (s *seen) removed(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum -= s.held[key]
	delete(s.held, key)
	if s.surveys > 0 {
		s.gone[key] = struct{}{}
	}
}
