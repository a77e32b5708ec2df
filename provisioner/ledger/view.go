package ledger

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// byNode indexes volumes by the node that makes them.
const byNode = "node"

// View is the controller's picture of the whole ledger, kept by two watches.
// What it returns is shared and must not be changed.
type View struct {
	Store
	volumes cache.SharedIndexInformer
	nodes   cache.SharedIndexInformer

	handlers []cache.ResourceEventHandlerRegistration // made before Run

	mu      sync.Mutex
	waiting map[string]map[chan struct{}]struct{}
}

// NewView prepares the picture of s; Run fills it.
func NewView(s Store) (*View, error) {
	v := &View{
		Store:   s,
		volumes: cache.NewSharedIndexInformer(s.WatchVolumes(""), &v1alpha1.PlinthVolume{}, 0, cache.Indexers{byNode: nodeOf}),
		nodes:   cache.NewSharedIndexInformer(s.WatchNodes(""), &v1alpha1.PlinthNode{}, 0, cache.Indexers{}),
		waiting: map[string]map[chan struct{}]struct{}{},
	}
	for _, i := range []cache.SharedIndexInformer{v.volumes, v.nodes} {
		if err := i.SetTransform(Strip); err != nil {
			return nil, fmt.Errorf("ledger view: %w", err)
		}
	}
	return v, v.OnVolume(func(_, now *v1alpha1.PlinthVolume) { v.signal(now.Name) }, func(gone *v1alpha1.PlinthVolume) { v.signal(gone.Name) })
}

// Run keeps the picture until ctx ends.
func (v *View) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { v.volumes.RunWithContext(ctx) })
	wg.Go(func() { v.nodes.RunWithContext(ctx) })
	wg.Wait()
}

// Synced says whether the first lists are in and every handler has seen them.
func (v *View) Synced() bool {
	for _, h := range v.handlers {
		if !h.HasSynced() {
			return false
		}
	}
	return v.volumes.HasSynced() && v.nodes.HasSynced()
}

// OnVolume calls changed with the former (nil when new) and the present state
// of each volume, and deleted with the last one. Calls come one at a time.
// Handlers are added before Run.
func (v *View) OnVolume(changed func(was, now *v1alpha1.PlinthVolume), deleted func(*v1alpha1.PlinthVolume)) error {
	return v.add(v.volumes, handler(changed, deleted))
}

// OnNode is OnVolume for the nodes.
func (v *View) OnNode(changed func(was, now *v1alpha1.PlinthNode), deleted func(*v1alpha1.PlinthNode)) error {
	return v.add(v.nodes, handler(changed, deleted))
}

func (v *View) add(i cache.SharedIndexInformer, h cache.ResourceEventHandler) error {
	r, err := i.AddEventHandler(h)
	v.handlers = append(v.handlers, r)
	return err
}

// Volume returns one volume as last seen.
func (v *View) Volume(name string) (*v1alpha1.PlinthVolume, bool) {
	o, ok, err := v.volumes.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1alpha1.PlinthVolume), true
}

// Volumes returns all volumes, in no order.
func (v *View) Volumes() []*v1alpha1.PlinthVolume {
	return typed[v1alpha1.PlinthVolume](v.volumes.GetStore().List())
}

// VolumesOn returns the volumes that a node makes, in no order.
func (v *View) VolumesOn(node string) []*v1alpha1.PlinthVolume {
	found, err := v.volumes.GetIndexer().ByIndex(byNode, node)
	if err != nil {
		return nil
	}
	return typed[v1alpha1.PlinthVolume](found)
}

// Node returns one node as last seen.
func (v *View) Node(name string) (*v1alpha1.PlinthNode, bool) {
	o, ok, err := v.nodes.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1alpha1.PlinthNode), true
}

// Nodes returns all nodes, in no order.
func (v *View) Nodes() []*v1alpha1.PlinthNode {
	return typed[v1alpha1.PlinthNode](v.nodes.GetStore().List())
}

// Until waits until done says true of the named volume, nil if it is absent,
// and returns what done last saw. It wakes on each change that the watch
// brings and never polls; ctx bounds it.
func (v *View) Until(ctx context.Context, name string, done func(*v1alpha1.PlinthVolume) bool) (*v1alpha1.PlinthVolume, error) {
	changed := v.subscribe(name)
	defer v.unsubscribe(name, changed)
	for {
		now, _ := v.Volume(name)
		if done(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

func (v *View) subscribe(name string) chan struct{} {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting[name] == nil {
		v.waiting[name] = map[chan struct{}]struct{}{}
	}
	v.waiting[name][c] = struct{}{}
	return c
}

func (v *View) unsubscribe(name string, c chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiting[name], c)
	if len(v.waiting[name]) == 0 {
		delete(v.waiting, name)
	}
}

func (v *View) signal(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.waiting[name] {
		select {
		case c <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}

// Strip drops what nobody here reads from an object before it is kept.
func Strip(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

func nodeOf(o any) ([]string, error) {
	if v, ok := o.(*v1alpha1.PlinthVolume); ok {
		return []string{v.Spec.NodeName}, nil
	}
	return nil, nil
}

func typed[T any](objects []any) []*T {
	out := make([]*T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(*T); ok {
			out = append(out, t)
		}
	}
	return out
}

func handler[T any](changed func(was, now *T), deleted func(*T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changed(nil, o.(*T)) },
		UpdateFunc: func(was, now any) { changed(was.(*T), now.(*T)) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if t, ok := o.(*T); ok {
				deleted(t)
			}
		},
	}
}
