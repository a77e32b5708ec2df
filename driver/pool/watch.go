package pool

import (
	"context"
	"errors"
	"time"

	"github.com/plinth-csi/plinth/driver/host/mount"
)

// How soon a pool that does not serve is tried again when no mount changed:
// its directory may have been made, or the process that served it ended.
const (
	retryFirst = time.Second
	retryLast  = time.Minute
)

// Watch reopens pools whenever the mounts of this node change, until the
// context ends, and calls changed after one came or went. It does nothing at
// all while every pool serves and no mount changes.
func (m *Manager) Watch(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mount.Watch(ctx, m.poke); err != nil {
			cancel(err)
		}
	}()
	defer func() { cancel(nil); <-done }()
	wait := retryFirst
	for {
		var retry <-chan time.Time // nil never fires
		if m.missing() {
			retry = time.After(wait)
			wait = min(2*wait, retryLast)
		} else {
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return watchError(ctx)
		case <-m.wake:
		case <-retry:
		}
		if m.Reopen(ctx) {
			changed()
		}
	}
}

// watchError is nil if the caller ended the watch.
func watchError(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// missing reports whether any pool does not serve.
func (m *Manager) missing() bool {
	for _, s := range m.slots() {
		s.mu.Lock()
		p := s.pool
		s.mu.Unlock()
		if p == nil {
			return true
		}
	}
	return false
}
