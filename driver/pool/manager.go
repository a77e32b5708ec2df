package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// The keys of what this package logs.
const (
	logPool     = "pool"
	logVolume   = "volume"
	logSnapshot = "snapshot"
	logGroup    = "group"
	logFrozen   = "frozen"
	logState    = "state"
	logUUID     = "uuid"
	logBackend  = "backend"
	logReason   = "reason"
	logProblem  = "problem"
	logError    = "error"
	logJob      = "job"
)

// Options are what a Manager needs.
type Options struct {
	Config    Config
	Node      string // the name of this node
	ClusterID string // of the cluster that asks; "" if none does
	// Known are the UUIDs that this node has reported, by pool. Another disk
	// at the path of such a pool is refused, and so is an empty one.
	Known    map[string]string
	Backends map[string]OpenBackend // by name; see the Backend constants
	Log      *slog.Logger

	step     func(what string) error // for tests, see store.step
	patience time.Duration           // for tests; 0 takes copyPatience
	frozen   time.Duration           // for tests; 0 takes freezeLimit
}

// copyPatience is how long a request waits for a copy that has begun before it
// answers that it is not ready: most are whole by then.
const copyPatience = 2 * time.Second

// Manager is all pools of a node. Its methods may be used at the same time.
type Manager struct {
	opts  Options
	plan  atomic.Pointer[plan]
	locks locks
	wake  chan struct{} // a pool may be opened now that could not be before

	reopening sync.Mutex
	closing   sync.WaitGroup // lost pools whose operations have not all ended
}

// Open opens all pools. One that cannot be opened is Unavailable, with the
// reason in its status, and does not keep the others from serving.
func Open(ctx context.Context, opts Options) (*Manager, error) {
	if opts.Node == "" || opts.Log == nil {
		return nil, fmt.Errorf("%w: pools need a node name and a log", volume.ErrInvalid)
	}
	if opts.patience == 0 {
		opts.patience = copyPatience
	}
	if opts.frozen == 0 {
		opts.frozen = freezeLimit
	}
	m := &Manager{opts: opts, wake: make(chan struct{}, 1)}
	next := &plan{refused: opts.Config.Refused}
	for _, cfg := range opts.Config.Pools {
		next.slots = append(next.slots, newSlot(cfg, opts.Known[cfg.Name]))
	}
	for _, r := range opts.Config.Refused {
		opts.Log.Warn("pool refused", logPool, r.Name, logReason, r.Reason, logError, r.Error())
	}
	m.plan.Store(next)
	m.Reopen(ctx)
	return m, nil
}

// Close lets go of all pools after the operations under way. Volumes stay
// mounted.
func (m *Manager) Close() {
	m.reopening.Lock()
	defer m.reopening.Unlock()
	for _, s := range m.slots() {
		if p := s.detach(nil); p != nil {
			p.close()
		}
	}
	m.closing.Wait()
}

// Reopen looks at every pool: one that is no longer what it was stops
// serving, one that does not serve is opened if it can be. It reports whether
// anything changed, and is cheap when nothing did.
func (m *Manager) Reopen(ctx context.Context) (changed bool) {
	m.reopening.Lock()
	defer m.reopening.Unlock()
	for _, s := range m.slots() {
		if m.reopen(ctx, s) {
			changed = true
		}
	}
	if changed {
		m.recoverGroups(ctx)
	}
	return changed
}

func (m *Manager) reopen(ctx context.Context, s *slot) bool {
	p, release, err := s.use()
	if err == nil {
		release()
		return false
	}
	if p != nil { // it is open, and what is at its path is something else
		fault := asFault(s.cfg, err)
		m.opts.Log.Warn("pool lost", logPool, s.cfg.Name, logReason, fault.Reason, logError, fault.Error())
		m.letGo(s, fault)
	}
	s.mu.Lock()
	before, known := s.fault, s.known
	s.mu.Unlock()
	p, fault := m.open(ctx, s.cfg, known)
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault != nil {
		if before.Reason != fault.Reason || before.Message != fault.Message {
			m.opts.Log.Warn("pool unavailable", logPool, s.cfg.Name, logReason, fault.Reason, logError, fault.Error())
		}
		s.fault = fault
		return before.Reason != fault.Reason || before.Message != fault.Message
	}
	s.pool, s.fault, s.known = p, nil, p.guard.uuid
	m.opts.Log.Info("pool ready", logPool, s.cfg.Name, logBackend, p.kind, logUUID, p.guard.uuid)
	return true
}

// letGo takes a pool out of service, for what the fault says, and closes it
// when the operations under way have ended. On a disk that is gone they may
// take long.
func (m *Manager) letGo(s *slot, fault *Fault) {
	if p := s.detach(fault); p != nil {
		m.closing.Go(func() {
			p.close()
			m.poke()
		})
	}
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Hold takes the one lock of a volume, ErrBusy if another operation has it.
// Whoever mounts or unmounts a volume holds it, so that nobody deletes it
// meanwhile.
func (m *Manager) Hold(id volume.ID) (release func(), err error) { return m.locks.try(volumeKey(id)) }

// hit is a record in its pool, given to one operation until release.
type hit[E any] struct {
	pool    *pool
	entry   E
	release func()
}

// found is a volume in its pool.
type found = hit[entry]

// find looks for a volume in all pools, as seek does.
func (m *Manager) find(id volume.ID) (found, error) {
	return seek(m, volumeKey(id), func(p *pool) (entry, error) { return p.records.get(id) })
}

// seek looks for a record in all pools. While a pool does not serve, what is
// found nowhere may be in it: the error is then ErrPoolUnavailable and not
// ErrNotFound, which would let its data be forgotten. What is in two pools is
// served from neither.
func seek[E any](m *Manager, what string, get func(*pool) (E, error)) (hit[E], error) {
	var hits []hit[E]
	var away []error
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			away = append(away, err)
			continue
		}
		e, err := get(p)
		if err == nil {
			hits = append(hits, hit[E]{p, e, release})
			continue
		}
		release()
		if !errors.Is(err, volume.ErrNotFound) {
			away = append(away, err)
		}
	}
	if len(hits) == 1 {
		return hits[0], nil
	}
	for _, h := range hits {
		h.release()
	}
	if len(hits) > 1 {
		return hit[E]{}, fmt.Errorf("%s: %w: pool %s and pool %s both have a record of it; find out which holds the data and move the other record away",
			what, volume.ErrPoolUnavailable, hits[0].pool.cfg.Name, hits[1].pool.cfg.Name)
	}
	for _, r := range m.refused() {
		if m.slot(r.Name) == nil {
			away = append(away, fmt.Errorf("pool %s: %w: %w", r.Name, volume.ErrPoolUnavailable, r))
		}
	}
	if len(away) > 0 {
		return hit[E]{}, fmt.Errorf("%s is in no pool that serves, and may be in one that does not: %w", what, errors.Join(away...))
	}
	return hit[E]{}, fmt.Errorf("%s: %w", what, volume.ErrNotFound)
}

// findReady finds a volume that may be used.
func (m *Manager) findReady(id volume.ID) (found, error) {
	f, err := m.find(id)
	if err != nil {
		return found{}, err
	}
	switch {
	case f.entry.broken != "":
		err = fmt.Errorf("volume %s: %w (%s)", id, errIncomplete, f.entry.broken)
	case f.entry.State != ready:
		err = fmt.Errorf("volume %s is %s: %w", id, f.entry.State, volume.ErrNotFound)
	}
	if err != nil {
		f.release()
		return found{}, err
	}
	return f, nil
}

// Get returns a volume; ErrNotFound without a record, and while it is being
// made or deleted.
func (m *Manager) Get(_ context.Context, id volume.ID) (volume.Volume, error) {
	f, err := m.findReady(id)
	if err != nil {
		return volume.Volume{}, err
	}
	defer f.release()
	return f.entry.volume(f.pool.node), nil
}

// List returns the volumes of all pools that serve, sorted by ID.
func (m *Manager) List(context.Context) ([]volume.Volume, error) {
	var out []volume.Volume
	err := m.each(func(p *pool, e entry) {
		out = append(out, e.volume(p.node))
	})
	slices.SortFunc(out, func(a, b volume.Volume) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}

// Exposed lists the volumes that are kept at a path of their own, sorted by ID.
func (m *Manager) Exposed(context.Context) ([]volume.ID, error) {
	var out []volume.ID
	err := m.each(func(_ *pool, e entry) {
		if e.Exposed {
			out = append(out, e.Spec.ID)
		}
	})
	slices.Sort(out)
	return out, err
}

// each calls do with every volume that may be used.
func (m *Manager) each(do func(*pool, entry)) error {
	for _, s := range m.slots() {
		p, release, err := s.use()
		if err != nil {
			continue // its status says why
		}
		entries, err := p.records.all()
		release()
		if err != nil {
			return fmt.Errorf("pool %s: %w", s.cfg.Name, err)
		}
		for _, e := range entries {
			if e.broken == "" && e.State == ready {
				do(p, e)
			}
		}
	}
	return nil
}

// Attach makes a volume ready to mount and says what to mount. The caller
// holds the volume.
func (m *Manager) Attach(ctx context.Context, id volume.ID) (backend.Source, error) {
	f, err := m.findReady(id)
	if err != nil {
		return backend.Source{}, err
	}
	defer f.release()
	return f.pool.backend.Attach(ctx, id)
}

// Detach undoes Attach. The caller holds the volume. A volume without a
// record is no error.
func (m *Manager) Detach(ctx context.Context, id volume.ID) error {
	f, err := m.find(id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.release()
	return f.pool.backend.Detach(ctx, id)
}

// Usage counts a volume alone. mountedAt is where its filesystem is mounted,
// "" if it is not.
func (m *Manager) Usage(ctx context.Context, id volume.ID, mountedAt string) (volume.Usage, error) {
	f, err := m.findReady(id)
	if err != nil {
		return volume.Usage{}, err
	}
	defer f.release()
	return f.pool.backend.Usage(ctx, id, mountedAt)
}

// SetExposed records whether a volume is kept at a path of its own. The
// caller holds the volume.
func (m *Manager) SetExposed(_ context.Context, id volume.ID, exposed bool) error {
	f, err := m.findReady(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.entry.Exposed == exposed {
		return nil
	}
	r := f.entry.record
	r.Exposed = exposed
	return f.pool.records.put(r)
}

// names lists pools for a message.
func (m *Manager) names() string {
	var out []string
	for _, s := range m.slots() {
		out = append(out, s.cfg.Name)
	}
	return strings.Join(out, ", ")
}
