package ledger

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The indexes of volumes: by the node that makes them, and by the UID of the
// claim that has them.
const (
	byNode  = "node"
	byClaim = "claim"
)

// View is the controller's picture of the whole ledger, kept by two watches.
// What it returns is shared and must not be changed.
type View struct {
	Store
	volumes cache.SharedIndexInformer
	snaps   cache.SharedIndexInformer
	nodes   cache.SharedIndexInformer

	handlers []cache.ResourceEventHandlerRegistration // made before Run

	mu      sync.Mutex
	waiting map[subject]map[chan struct{}]struct{}
}

// subject is an object that somebody waits for.
type subject struct{ kind, name string }

// NewView prepares the picture of s; Run fills it.
func NewView(s Store) (*View, error) {
	v := &View{
		Store:   s,
		volumes: cache.NewSharedIndexInformer(s.WatchVolumes(""), &v1alpha1.PlinthVolume{}, 0, cache.Indexers{byNode: nodeOf, byClaim: claimOf}),
		snaps:   cache.NewSharedIndexInformer(s.WatchSnapshots(""), &v1alpha1.PlinthSnapshot{}, 0, cache.Indexers{}),
		nodes:   cache.NewSharedIndexInformer(s.WatchNodes(""), &v1alpha1.PlinthNode{}, 0, cache.Indexers{}),
		waiting: map[subject]map[chan struct{}]struct{}{},
	}
	for _, i := range []cache.SharedIndexInformer{v.volumes, v.snaps, v.nodes} {
		if err := i.SetTransform(Strip); err != nil {
			return nil, fmt.Errorf("ledger view: %w", err)
		}
	}
	err := v.OnVolume(
		func(_, now *v1alpha1.PlinthVolume) { v.signal(subject{volumes, now.Name}) },
		func(gone *v1alpha1.PlinthVolume) { v.signal(subject{volumes, gone.Name}) },
	)
	if err != nil {
		return nil, err
	}
	return v, v.add(v.snaps, handler(
		func(_, now *v1alpha1.PlinthSnapshot) { v.signal(subject{snapshots, now.Name}) },
		func(gone *v1alpha1.PlinthSnapshot) { v.signal(subject{snapshots, gone.Name}) },
	))
}

// Run keeps the picture until ctx ends.
func (v *View) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { v.volumes.RunWithContext(ctx) })
	wg.Go(func() { v.snaps.RunWithContext(ctx) })
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
	return v.volumes.HasSynced() && v.snaps.HasSynced() && v.nodes.HasSynced()
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
func (v *View) VolumesOn(node string) []*v1alpha1.PlinthVolume { return v.indexed(byNode, node) }

// VolumesOf returns the volumes that the claim with a UID has, or that were to
// be made for it, in no order.
func (v *View) VolumesOf(uid string) []*v1alpha1.PlinthVolume { return v.indexed(byClaim, uid) }

func (v *View) indexed(index, value string) []*v1alpha1.PlinthVolume {
	found, err := v.volumes.GetIndexer().ByIndex(index, value)
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

// Snapshot returns one snapshot as last seen.
func (v *View) Snapshot(name string) (*v1alpha1.PlinthSnapshot, bool) {
	o, ok, err := v.snaps.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1alpha1.PlinthSnapshot), true
}

// Snapshots returns all snapshots, in no order.
func (v *View) Snapshots() []*v1alpha1.PlinthSnapshot {
	return typed[v1alpha1.PlinthSnapshot](v.snaps.GetStore().List())
}

// Until waits until done says true of the named volume, nil if it is absent,
// and returns what done last saw. It wakes on each change that the watch
// brings and never polls; ctx bounds it.
func (v *View) Until(ctx context.Context, name string, done func(*v1alpha1.PlinthVolume) bool) (*v1alpha1.PlinthVolume, error) {
	return until(ctx, v, subject{volumes, name}, v.Volume, done)
}

// UntilSnapshot is Until for a snapshot.
func (v *View) UntilSnapshot(ctx context.Context, name string, done func(*v1alpha1.PlinthSnapshot) bool) (*v1alpha1.PlinthSnapshot, error) {
	return until(ctx, v, subject{snapshots, name}, v.Snapshot, done)
}

func until[T any](ctx context.Context, v *View, what subject, get func(name string) (*T, bool), done func(*T) bool) (*T, error) {
	changed := v.subscribe(what)
	defer v.unsubscribe(what, changed)
	for {
		now, _ := get(what.name)
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

func (v *View) subscribe(what subject) chan struct{} {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting[what] == nil {
		v.waiting[what] = map[chan struct{}]struct{}{}
	}
	v.waiting[what][c] = struct{}{}
	return c
}

func (v *View) unsubscribe(what subject, c chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiting[what], c)
	if len(v.waiting[what]) == 0 {
		delete(v.waiting, what)
	}
}

func (v *View) signal(what subject) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.waiting[what] {
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

func claimOf(o any) ([]string, error) {
	if v, ok := o.(*v1alpha1.PlinthVolume); ok && v.Spec.ClaimUID != "" {
		return []string{v.Spec.ClaimUID}, nil
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
