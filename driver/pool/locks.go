package pool

import (
	"fmt"
	"sync"

	"github.com/plinth-csi/plinth/driver/volume"
)

// locks is one lock for each volume, snapshot or group, by what it is called.
// Nobody waits: whoever comes second is told so, and its caller tries again
// (CSI 1.13: ABORTED).
type locks struct {
	mu   sync.Mutex
	held map[string]int // how many share it; alone if one has it for itself
}

const alone = -1

// try takes a lock for itself, ErrBusy if anybody has it.
func (l *locks) try(what string) (release func(), err error) { return l.take(what, false) }

// take takes a lock, with others who share it or alone.
func (l *locks) take(what string, share bool) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]int{}
	}
	switch n := l.held[what]; {
	case share && n != alone:
		l.held[what]++
	case n == 0:
		l.held[what] = alone
	default:
		return nil, fmt.Errorf("%s: %w", what, volume.ErrBusy)
	}
	return sync.OnceFunc(func() { l.release(what) }), nil
}

func (l *locks) release(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[what]--; l.held[what] <= 0 {
		delete(l.held, what)
	}
}

// What locks, reservations and jobs are called.
func volumeKey(id volume.ID) string   { return "volume " + string(id) }
func snapshotKey(id volume.ID) string { return "snapshot " + string(id) }
func groupKey(id volume.ID) string    { return "group " + string(id) }
func removalKey(id volume.ID) string  { return "removal " + string(id) }
