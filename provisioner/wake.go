package provisioner

import (
	"math"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

// wakeable is an informer whose handlers can be given an object once more.
// The library's handlers read nothing but the object's name and UID and put
// them on a work queue, so a wake-up is cheap, may come from anywhere, and is
// not lost while the object is being worked on.
type wakeable struct {
	cache.SharedIndexInformer

	mu       sync.Mutex
	handlers []cache.ResourceEventHandler
}

// AddEventHandlerWithResyncPeriod is how the library adds its handler.
func (w *wakeable) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	w.mu.Lock()
	w.handlers = append(w.handlers, h)
	w.mu.Unlock()
	return w.SharedIndexInformer.AddEventHandlerWithResyncPeriod(h, resync)
}

// AddIndexers is how the library adds its index. Where it fails the library
// ends the process, also when the informer has merely been stopped in an
// orderly end that came early; nobody needs the index then.
func (w *wakeable) AddIndexers(i cache.Indexers) error {
	err := w.SharedIndexInformer.AddIndexers(i)
	if w.IsStopped() {
		return nil
	}
	return err
}

func (w *wakeable) wake(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.handlers {
		h.OnUpdate(object, object)
	}
}

// The times between tries.
const (
	firstRetry = 200 * time.Millisecond // of what failed by an error of the API server or the like
	lastRetry  = time.Minute
	// netRetry is for what waits to be woken: were a wake-up lost, this is
	// how long it would take to notice.
	netRetry = 5 * time.Minute
)

// limiter decides how long the library waits before it tries a claim (by UID)
// or a PersistentVolume (by name) again. It has no overall rate: the API
// server's fairness is the limit.
type limiter struct {
	mu       sync.Mutex
	failures map[string]int
	calm     map[string]bool
}

func newLimiter() *limiter {
	return &limiter{failures: map[string]int{}, calm: map[string]bool{}}
}

// begin starts a try of key.
func (l *limiter) begin(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calm, key)
}

// rest says that key waits for a wake-up from now on.
func (l *limiter) rest(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calm[key] = true
}

// When implements workqueue.TypedRateLimiter.
func (l *limiter) When(key string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calm[key] {
		delete(l.failures, key)
		return netRetry
	}
	n := l.failures[key]
	l.failures[key]++
	return min(lastRetry, time.Duration(float64(firstRetry)*math.Pow(2, float64(min(n, 20)))))
}

// Forget implements workqueue.TypedRateLimiter.
func (l *limiter) Forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.failures, key)
	delete(l.calm, key)
}

// NumRequeues implements workqueue.TypedRateLimiter.
func (l *limiter) NumRequeues(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures[key]
}
