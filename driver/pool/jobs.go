package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/plinth-csi/plinth/driver/volume"
)

// slowJobs is how many jobs of a pool copy or free bytes at the same time:
// more would only share what the disk gives.
const slowJobs = 2

// jobs is work that goes on when whoever asked for it has stopped waiting. A
// key, as of a volume, has at most one. What a job was about is in a record,
// so that one that a cut ends is finished or undone when the pool is opened.
type jobs struct {
	log   *slog.Logger
	ctx   context.Context // ends when the pool is closed
	end   context.CancelFunc
	slots chan struct{} // one for each job in its slow part
	wg    sync.WaitGroup

	mu    sync.Mutex
	known map[string]*job // under way, or failed and nobody was told
}

// job is one piece of work.
type job struct {
	cancel context.CancelFunc
	slots  chan struct{}
	began  chan struct{} // closed when the slow part begins, if it has one
	done   chan struct{} // closed at the end; err does not change after
	err    error
	begun  bool         // began is closed; this and slow are the job's own
	slow   bool         // it has a slot
	moved  atomic.Int64 // bytes so far
}

func newJobs(log *slog.Logger) *jobs {
	ctx, end := context.WithCancel(context.Background())
	return &jobs{log: log, ctx: ctx, end: end, slots: make(chan struct{}, slowJobs), known: map[string]*job{}}
}

// start makes do the job of a key. The
// context of do ends with the pool, or with cancel. What do returns is told to
// whoever waits, or to the next who asks for the key. ErrBusy if the key has a
// job, ErrPoolUnavailable if the pool is being closed; do is not called then.
func (j *jobs) start(key string, do func(context.Context, *job) error) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ctx.Err(); err != nil { // no more may be added to the group
		return nil, fmt.Errorf("%w: it is being closed: %w", volume.ErrPoolUnavailable, err)
	}
	if w := j.known[key]; w != nil && !w.ended() {
		return nil, fmt.Errorf("%s: %w", key, volume.ErrBusy)
	}
	ctx, cancel := context.WithCancel(j.ctx)
	w := &job{cancel: cancel, slots: j.slots, began: make(chan struct{}), done: make(chan struct{})}
	j.known[key] = w
	j.wg.Go(func() { j.run(ctx, key, w, do) })
	return w, nil
}

func (j *jobs) run(ctx context.Context, key string, w *job, do func(context.Context, *job) error) {
	err := do(ctx, w)
	w.cancel()
	if w.slow {
		<-w.slots
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		j.log.Warn("background work failed", logJob, key, logError, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	w.err = err
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		delete(j.known, key)
	}
	close(w.done)
}

// find gives the job of a key, nil if none is under way. One that has failed
// is given once: whoever gets it tells its error.
func (j *jobs) find(key string) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	w := j.known[key]
	if w != nil && w.ended() {
		delete(j.known, key)
	}
	return w
}

// peek is find that leaves the telling of an error to others.
func (j *jobs) peek(key string) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	if w := j.known[key]; w != nil && !w.ended() {
		return w
	}
	return nil
}

// cancel ends the job of a key and waits until it has ended.
func (j *jobs) cancel(key string) {
	if w := j.find(key); w != nil {
		w.cancel()
		<-w.done
		j.find(key) // an error of it is of no interest any more
	}
}

// close ends all jobs and waits for them. There are no new ones after it.
func (j *jobs) close() {
	j.mu.Lock()
	j.end()
	j.mu.Unlock()
	j.wg.Wait()
}

func (w *job) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// progress is called by the work when its slow part begins, where it waits for
// its turn, and then with the bytes moved so far. It is a backend.Progress.
func (w *job) progress(ctx context.Context, bytes int64) error {
	if !w.begun {
		w.begun = true
		close(w.began)
		select {
		case w.slots <- struct{}{}:
			w.slow = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.moved.Store(bytes)
	return ctx.Err()
}

// wait waits for the end of a job for as long as the context lives, and gives
// its error: ErrBusy if it goes on, with what has been done of total bytes.
func (w *job) wait(ctx context.Context, total int64) error {
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("%w: copying, %d of at most %d bytes; it goes on, ask again", volume.ErrBusy, w.moved.Load(), total)
	}
}
