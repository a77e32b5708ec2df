// Package agent is the loop of one node: it watches the PlinthVolumes of its
// own node, has the engine make, grow and delete them, reports what became of
// each in its status, and keeps the node's PlinthNode up to date.
//
// The objects say what is wanted, the records on disk say what there is. The
// agent never makes a volume a second time whose status says that it was made
// (its data may be on a disk that is away), never removes what no object
// explains, and never touches a volume that is already as it should be, so
// that starting it disturbs no pod. Every step can be cut and is taken again:
// the engine's calls are idempotent, and a finalizer holds an object until
// its bytes are free.
//
// It needs no API server to start and does nothing while idle: it works when
// a watch brings a change, when the engine says that pools came or went, and
// on a slow timer for space that others take. A plain REST client with two
// watches is all it has of Kubernetes.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The keys of what this package logs.
const (
	logVolume   = "volume"
	logSnapshot = "snapshot"
	logNode     = "node"
	logPool     = "pool"
	logReason   = "reason"
	logError    = "error"
)

// Engine is the storage of this node. Every method may be called again after
// a cut and while other volumes are worked on; errors wrap the sentinels of
// driver/volume.
type Engine interface {
	// Create makes a volume, resumes one that was cut, or finds the one of
	// that name; ErrExists if that has other properties.
	Create(ctx context.Context, r volume.Request) (volume.Volume, error)
	// Delete returns once the bytes are free. A volume that the pool does not
	// have is nil; ErrInUse while it is mounted; ErrPoolUnavailable while the
	// pool does not serve, ErrInvalid if there is no such pool.
	Delete(ctx context.Context, pool string, id volume.ID) error
	// Get returns ErrNotFound only if no pool can have the volume.
	Get(ctx context.Context, id volume.ID) (volume.Volume, error)
	// List gives the volumes of all pools that serve.
	List(ctx context.Context) ([]volume.Volume, error)
	// Expand grows; a volume of that size or more stays as it is.
	Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error)
	// Modify gives a volume those attributes, all of them; ErrUnsupported where
	// its pool has none.
	Modify(ctx context.Context, id volume.ID, to volume.Attributes) (volume.Volume, error)
	// CreateSnapshot cuts a snapshot, resumes one, or finds the one of that
	// name; not Ready while its bytes are still being copied.
	CreateSnapshot(ctx context.Context, r volume.SnapshotRequest) (volume.Snapshot, error)
	// DeleteSnapshot returns once its bytes are free; an absent one is nil,
	// ErrPoolUnavailable while it may be in a pool that does not serve.
	DeleteSnapshot(ctx context.Context, id volume.ID) error
	// GetSnapshot returns ErrNotFound only if no pool can have the snapshot.
	GetSnapshot(ctx context.Context, id volume.ID) (volume.Snapshot, error)
	// CreateGroup takes snapshots of several volumes at one instant, or finds
	// the group of that name; ErrExists if that is of other volumes. All are
	// taken or none is.
	CreateGroup(ctx context.Context, r volume.GroupRequest) (volume.Group, error)
	// DeleteGroup removes a group with all its snapshots; an absent one is nil.
	DeleteGroup(ctx context.Context, id volume.ID) error
	// Pools is the state of every pool, served or not.
	Pools(ctx context.Context) []volume.PoolStatus
	// Expose gives the path under which local and hostPath volumes are used;
	// one that is exposed stays as it is.
	Expose(ctx context.Context, id volume.ID) (string, error)
	// Release makes a volume a plain directory below its pool, and gives its
	// absolute path. One that the pool does not have was released before; ErrInUse
	// while it is mounted, ErrExists if something is there.
	Release(ctx context.Context, pool string, id volume.ID, to volume.Path) (string, error)
	// Unexpose undoes Expose; an absent volume is nil, ErrInUse while others
	// have it mounted.
	Unexpose(ctx context.Context, id volume.ID) error
}

// Objects are the API objects that the agent reads and writes: its own node's
// alone. Errors are those of the API server.
type Objects interface {
	// UpdateVolumeStatus answers Conflict if v is not the newest.
	UpdateVolumeStatus(ctx context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error)
	// ReleaseVolume removes the finalizer; an absent object is nil.
	ReleaseVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error
	// UpdateSnapshotStatus and ReleaseSnapshot are the same for snapshots.
	UpdateSnapshotStatus(ctx context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error)
	ReleaseSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error
	GetNode(ctx context.Context, name string) (*v1alpha1.PlinthNode, error)
	CreateNode(ctx context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error)
	UpdateNodeStatus(ctx context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error)
	// Withdrawn says whether the kinds of volumes and snapshots are being taken
	// out of the API, which marks all their objects as deleted.
	Withdrawn(ctx context.Context) (bool, error)
	// WatchVolumes and WatchSnapshots list and watch what is on one node,
	// WatchNodes one PlinthNode.
	WatchVolumes(node string) cache.ListerWatcher
	WatchSnapshots(node string) cache.ListerWatcher
	WatchNodes(name string) cache.ListerWatcher
}

// Config is what an Agent needs.
type Config struct {
	Node    string // the name of this node
	Version string // of this program
	Engine  Engine
	Objects Objects
	Workers int // volumes worked on at a time; 0 is 8
	Log     *slog.Logger
}

// The times of the agent.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
	// gather is how long changes are gathered before the node is published.
	gather = 400 * time.Millisecond
	// burial bounds how long a node that comes back frees before it serves.
	burial = time.Minute
	// refresh is how often the space that others use is looked at.
	refresh = 5 * time.Minute
)

// Agent is made by New and runs once.
type Agent struct {
	cfg       Config
	volumes   cache.SharedIndexInformer
	snapshots cache.SharedIndexInformer
	node      cache.SharedIndexInformer
	queue     workqueue.TypedRateLimitingInterface[item]
	publish   chan struct{}

	mu        sync.Mutex
	unchecked map[string]bool      // volumes whose data has not been looked at since pools changed
	strangers []volume.ID          // volumes that no object explains
	wrote     string               // the resource version of the PlinthNode that this agent wrote last
	owed      map[volume.ID]string // by pool: to be deleted when their pool comes back
}

// item is an object to be worked on.
type item struct {
	kind kind
	name string
}

// kind is a word of the log, too.
type kind string

const (
	aVolume   kind = logVolume
	aSnapshot kind = logSnapshot
)

// New validates the configuration.
func New(cfg Config) (*Agent, error) {
	if cfg.Node == "" || cfg.Engine == nil || cfg.Objects == nil || cfg.Log == nil {
		return nil, fmt.Errorf("%w: the agent needs a node, an engine, the API's objects and a log", volume.ErrInvalid)
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	a := &Agent{
		cfg:       cfg,
		volumes:   cache.NewSharedIndexInformer(cfg.Objects.WatchVolumes(cfg.Node), &v1alpha1.PlinthVolume{}, 0, cache.Indexers{}),
		snapshots: cache.NewSharedIndexInformer(cfg.Objects.WatchSnapshots(cfg.Node), &v1alpha1.PlinthSnapshot{}, 0, cache.Indexers{}),
		node:      cache.NewSharedIndexInformer(cfg.Objects.WatchNodes(cfg.Node), &v1alpha1.PlinthNode{}, 0, cache.Indexers{}),
		queue:     workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[item](firstRetry, lastRetry)),
		publish:   make(chan struct{}, 1),
		unchecked: map[string]bool{},
		owed:      map[volume.ID]string{},
	}
	return a, a.watch()
}

// watch connects the watches to the queue and the publisher.
func (a *Agent) watch() error {
	for _, i := range []cache.SharedIndexInformer{a.volumes, a.snapshots, a.node} {
		if err := i.SetTransform(strip); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	for _, i := range []cache.SharedIndexInformer{a.volumes, a.snapshots} {
		_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { a.enqueue(o) },
			UpdateFunc: func(_, o any) { a.enqueue(o) },
		})
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	// A PlinthNode that goes, with its Node or by hand, is made again, and one
	// that somebody changes is put right. The agent's own writes come back
	// here, too: the look that follows finds nothing to write.
	_, err := a.node.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, o any) { a.overwritten(o) },
		DeleteFunc: func(any) { a.changed() },
	})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// Run works until ctx ends. It waits for the API server as long as it takes.
func (a *Agent) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.volumes.RunWithContext(ctx) })
	wg.Go(func() { a.snapshots.RunWithContext(ctx) })
	wg.Go(func() { a.node.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), a.Synced) {
		return
	}
	a.compare(ctx)
	a.bury(ctx)
	wg.Go(func() { a.publishing(ctx) })
	for range a.cfg.Workers {
		wg.Go(func() { a.work(ctx) })
	}
	<-ctx.Done()
	a.queue.ShutDown()
}

// Synced says whether the first lists are in.
func (a *Agent) Synced() bool {
	return a.volumes.HasSynced() && a.snapshots.HasSynced() && a.node.HasSynced()
}

// PoolsChanged is to be called when a pool came or went: the node is
// published, and every volume and snapshot is looked at.
func (a *Agent) PoolsChanged() {
	a.checkAll()
	for _, i := range []cache.SharedIndexInformer{a.volumes, a.snapshots} {
		for _, o := range i.GetStore().List() {
			a.enqueue(o)
		}
	}
	a.changed()
}

// Retry is to be called when a volume may be free of its users, so that a
// deletion that waits for that goes on.
func (a *Agent) Retry(id volume.ID) {
	if _, ok := a.get(string(id)); ok {
		a.queue.Forget(item{aVolume, string(id)})
		a.queue.Add(item{aVolume, string(id)})
	}
}

// overwritten has the node published if its status is not what this agent
// wrote last.
func (a *Agent) overwritten(o any) {
	a.mu.Lock()
	last := a.wrote
	a.mu.Unlock()
	if n, ok := o.(*v1alpha1.PlinthNode); ok && n.ResourceVersion != last {
		a.changed()
	}
}

func (a *Agent) enqueue(o any) {
	switch o := o.(type) {
	case *v1alpha1.PlinthVolume:
		a.queue.Add(item{aVolume, o.Name})
	case *v1alpha1.PlinthSnapshot:
		a.queue.Add(item{aSnapshot, o.Name})
	}
}

func (a *Agent) work(ctx context.Context) {
	for {
		i, over := a.queue.Get()
		if over {
			return
		}
		err := a.do(ctx, i)
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("to be tried again", string(i.kind), i.name, logError, err)
			a.queue.AddRateLimited(i)
		} else {
			a.queue.Forget(i)
		}
		a.queue.Done(i)
	}
}

func (a *Agent) do(ctx context.Context, i item) error {
	if i.kind == aSnapshot {
		return a.reconcileSnapshot(ctx, i.name)
	}
	return a.reconcile(ctx, i.name)
}

func (a *Agent) get(name string) (*v1alpha1.PlinthVolume, bool) {
	o, ok, err := a.volumes.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	v, ok := o.(*v1alpha1.PlinthVolume)
	return v, ok
}

// changed has the node published soon.
func (a *Agent) changed() {
	select {
	case a.publish <- struct{}{}:
	default: // it is due already
	}
}

// compare finds, before anything is worked on, the volumes on disk that no
// object explains. They are told of and left alone: they may belong to
// another cluster, or to an object that somebody deleted by force.
func (a *Agent) compare(ctx context.Context) {
	a.checkAll()
	found, err := a.cfg.Engine.List(ctx)
	if err != nil {
		a.cfg.Log.Warn("volumes on this node cannot be listed", logError, err)
	}
	var strangers []volume.ID
	for _, v := range found {
		// Volumes of a shared pool belong to the node that made them, ephemeral
		// ones to their pods: kubelet makes and deletes them without an object.
		if _, ok := a.get(string(v.ID)); !ok && v.Node != "" && !v.Ephemeral {
			strangers = append(strangers, v.ID)
			a.cfg.Log.Warn("a volume that no PlinthVolume explains; it is left alone", logVolume, v.ID, logPool, v.Pool)
		}
	}
	a.mu.Lock()
	a.strangers = strangers
	a.mu.Unlock()
	a.changed()
}

// bury is for a node that was declared gone and has come back: its PlinthNode
// went with its Node. What was deleted meanwhile has let its
// claims and PersistentVolumes go without waiting for their bytes, so those
// are freed before the node offers any. What cannot be freed yet, or takes too
// long, is still in the queue.
func (a *Agent) bury(ctx context.Context) {
	if _, known, err := a.node.GetStore().GetByKey(a.cfg.Node); known || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, burial)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, a.cfg.Workers)
	for kind, informer := range map[kind]cache.SharedIndexInformer{aSnapshot: a.snapshots, aVolume: a.volumes} {
		for _, o := range informer.GetStore().List() {
			object, err := meta.Accessor(o)
			if err != nil || object.GetDeletionTimestamp() == nil {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				err := a.do(ctx, item{kind, object.GetName()})
				a.cfg.Log.Info("deleted while this node was gone", string(kind), object.GetName(), logError, err)
			})
		}
	}
	wg.Wait()
}

func (a *Agent) checkAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range a.volumes.GetStore().ListKeys() {
		a.unchecked[name] = true
	}
}

// toCheck says whether the volume's data is still to be looked at.
func (a *Agent) toCheck(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unchecked[name]
}

func (a *Agent) checked(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unchecked, name)
}
