package pool

import (
	"context"
	"errors"
	"fmt"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Delete removes a volume and returns once its bytes are free. One that is
// not there is no error, but if a pool does not serve the volume may be in it
// and the error is ErrPoolUnavailable; see DeleteIn. Where there is much to
// free it goes on when the context has ended: ErrBusy then, and whoever asks
// again waits on.
func (m *Manager) Delete(ctx context.Context, id volume.ID) error {
	return m.remove(ctx, id, func() (found, error) { return m.find(id) })
}

// DeleteIn is Delete for a caller that knows the pool: the state of the
// others does not matter then. ErrInvalid without such a pool.
func (m *Manager) DeleteIn(ctx context.Context, name string, id volume.ID) error {
	return m.remove(ctx, id, func() (found, error) {
		s := m.slot(name)
		if s == nil {
			return found{}, m.noPool(name)
		}
		p, release, err := s.use()
		if err != nil {
			return found{}, err
		}
		e, err := p.records.get(id)
		if err != nil {
			release()
		}
		return found{p, e, release}, err
	})
}

func (m *Manager) remove(ctx context.Context, id volume.ID, find func() (found, error)) error {
	p, w := m.removal(id)
	if w == nil {
		var err error
		if p, w, err = m.startRemoval(id, find); err != nil {
			return fmt.Errorf("delete volume: %w", err)
		}
	}
	if w == nil {
		return nil // it is not there
	}
	select {
	case <-w.done:
		p.jobs.find(removalKey(id)) // its error is told now
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("delete volume %s: %w: its bytes are being freed, which goes on; ask again (%w)", id, volume.ErrBusy, ctx.Err())
	}
}

// removal finds the removal of a volume that is under way; nil if none is.
func (m *Manager) removal(id volume.ID) (*pool, *job) {
	for _, s := range m.slots() {
		s.mu.Lock()
		p := s.pool
		s.mu.Unlock()
		if p == nil {
			continue
		}
		if w := p.jobs.peek(removalKey(id)); w != nil {
			return p, w
		}
	}
	return nil, nil
}

// startRemoval begins to remove a volume, nil if it is not there. The volume
// is held until that has ended.
func (m *Manager) startRemoval(id volume.ID, find func() (found, error)) (p *pool, w *job, err error) {
	var held []func()
	release := func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i]()
		}
	}
	defer func() {
		if w == nil {
			release()
		}
		if errors.Is(err, volume.ErrNotFound) {
			err = nil
		}
	}()
	hold, err := m.Hold(id)
	if err != nil {
		return nil, nil, err
	}
	held = append(held, hold)
	f, err := find()
	if err != nil {
		return nil, nil, err
	}
	held = append(held, f.release)
	f.pool.jobs.cancel(volumeKey(id)) // a copy that fills it
	unlock, err := f.pool.lockVolume(id)
	if err != nil {
		return nil, nil, err
	}
	held = append(held, unlock)
	e, err := f.pool.records.get(id) // as that left it
	if err != nil {
		return nil, nil, err
	}
	w, err = f.pool.jobs.start(removalKey(id), func(ctx context.Context, _ *job) error {
		defer release()
		return f.pool.delete(ctx, e)
	})
	return f.pool, w, err
}

// resumeRemoval goes on with a removal that a cut ended, and waits for it as
// long as the context lives.
func (p *pool) resumeRemoval(ctx context.Context, r record, unlock func()) {
	id := r.Spec.ID
	release, err := p.hold(id)
	var w *job
	if err == nil {
		w, err = p.jobs.start(removalKey(id), func(ctx context.Context, _ *job) error {
			defer unlock()
			defer release()
			err := p.destroy(ctx, r)
			if err != nil && ctx.Err() == nil {
				p.unfinished(r, err)
			}
			return err
		})
		if err != nil {
			release()
		}
	}
	if err != nil {
		unlock()
		p.unfinished(r, err)
		return
	}
	select {
	case <-w.done:
		p.jobs.find(removalKey(id)) // its error is shown
	case <-ctx.Done():
	}
}
