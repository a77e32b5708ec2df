package pool

import (
	"fmt"
	"sync"

	"github.com/plinth-csi/plinth/driver/volume"
)

// locks is one lock for each volume. Nobody waits: whoever comes second is
// told so, and its caller tries again (CSI 1.13: ABORTED).
type locks struct {
	mu   sync.Mutex
	held map[volume.ID]struct{}
}

// try takes a volume's lock or returns ErrBusy.
func (l *locks) try(id volume.ID) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := l.held[id]; busy {
		return nil, fmt.Errorf("volume %s: %w", id, volume.ErrBusy)
	}
	if l.held == nil {
		l.held = map[volume.ID]struct{}{}
	}
	l.held[id] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, id)
	}, nil
}
