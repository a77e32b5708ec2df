package ledger

import (
	"context"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// WatchVolumes implements Store.
func (m *Memory) WatchVolumes(node string) cache.ListerWatcher {
	selects := func(o runtime.Object) bool {
		v, ok := o.(*v1alpha1.PlinthVolume)
		return ok && (node == "" || v.Spec.NodeName == node)
	}
	return &memoryListWatch{m: m, selects: selects, list: func() runtime.Object {
		l := &v1alpha1.PlinthVolumeList{}
		l.ResourceVersion = strconv.FormatInt(m.version, 10)
		for _, name := range sortedNames(m.volumes) {
			if selects(m.volumes[name]) {
				l.Items = append(l.Items, *m.volumes[name].DeepCopy())
			}
		}
		return l
	}}
}

// WatchNodes implements Store.
func (m *Memory) WatchNodes(name string) cache.ListerWatcher {
	selects := func(o runtime.Object) bool {
		n, ok := o.(*v1alpha1.PlinthNode)
		return ok && (name == "" || n.Name == name)
	}
	return &memoryListWatch{m: m, selects: selects, list: func() runtime.Object {
		l := &v1alpha1.PlinthNodeList{}
		l.ResourceVersion = strconv.FormatInt(m.version, 10)
		for _, name := range sortedNames(m.nodes) {
			if selects(m.nodes[name]) {
				l.Items = append(l.Items, *m.nodes[name].DeepCopy())
			}
		}
		return l
	}}
}

type memoryListWatch struct {
	m       *Memory
	selects func(runtime.Object) bool
	list    func() runtime.Object
}

// IsWatchListSemanticsUnSupported tells the reflector to list, then watch.
func (*memoryListWatch) IsWatchListSemanticsUnSupported() bool { return true }

// List implements cache.Lister.
func (l *memoryListWatch) List(metav1.ListOptions) (runtime.Object, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.list(), nil
}

// Watch implements cache.Watcher. Every change since the list's version was
// kept for it, as the API server's watch cache does.
func (l *memoryListWatch) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), o)
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (l *memoryListWatch) ListWithContext(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return l.List(o)
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l *memoryListWatch) WatchWithContext(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	since, err := strconv.ParseInt(o.ResourceVersion, 10, 64)
	if err != nil {
		since = 0
	}
	w := &watcher{m: l.m, selects: l.selects, out: make(chan watch.Event), done: make(chan struct{})}
	w.ready = sync.NewCond(&w.mu)
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	for _, e := range l.m.history {
		if e.version > since && l.selects(e.event.Object) {
			w.queue = append(w.queue, e.event)
		}
	}
	l.m.watchers = append(l.m.watchers, w)
	go w.run()
	return w, nil
}

// past is one event of the history.
type past struct {
	version int64
	event   watch.Event
}

// watcher delivers events in order, however slow its reader is.
type watcher struct {
	m       *Memory
	selects func(runtime.Object) bool
	out     chan watch.Event
	done    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	ready *sync.Cond
	queue []watch.Event
	ended bool
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// Stop implements watch.Interface.
func (w *watcher) Stop() {
	w.once.Do(func() {
		close(w.done)
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
		w.ready.Signal()
	})
}

func (w *watcher) run() {
	defer close(w.out)
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.ended {
			w.ready.Wait()
		}
		if w.ended {
			w.mu.Unlock()
			return
		}
		e := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		select {
		case w.out <- e:
		case <-w.done:
			return
		}
	}
}

// send tells the watchers; m.mu is held.
func (m *Memory) send(t watch.EventType, o runtime.Object) {
	e := watch.Event{Type: t, Object: o.DeepCopyObject()}
	m.history = append(m.history, past{version: m.version, event: e})
	for _, w := range m.watchers {
		if !w.selects(o) {
			continue
		}
		w.mu.Lock()
		w.queue = append(w.queue, watch.Event{Type: t, Object: o.DeepCopyObject()})
		w.mu.Unlock()
		w.ready.Signal()
	}
}
