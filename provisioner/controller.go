package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/capacity"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// DefaultWorkers is how many claims, and how many PersistentVolumes, are
// worked on at a time. A worker mostly waits for a node.
const DefaultWorkers = 100

// component names the controller in events.
const component = "plinth-controller"

// The keys of what this package logs.
const (
	logVolume = "volume"
	logNode   = "node"
	logClaim  = "claim"
	logUntil  = "until"
	logError  = "error"
)

// Config is what a Controller needs.
type Config struct {
	Driver    string // also the provisioner that StorageClasses name
	Namespace string // of the controller: for CSIStorageCapacity objects and the lease
	PodName   string // of the controller, whose owner owns the capacities; "" for none
	Workers   int    // 0 is DefaultWorkers
	// LeaderElect makes sure that of several controllers one provisions; all
	// of them serve CSI.
	LeaderElect bool
	REST        *rest.Config
	Log         *slog.Logger
}

// Controller is the control plane: provisioner, capacity, and the volumes of
// the CSI controller service. It is made by New and runs once.
type Controller struct {
	cfg        Config
	client     kubernetes.Interface
	view       *ledger.View
	factory    informers.SharedInformerFactory
	claims     *wakeable
	pvs        *wakeable
	classes    storagelisters.StorageClassLister
	nodes      corelisters.NodeLister
	attributes attributesClasses

	provisioner *Provisioner
	volumes     *Volumes
	snapshots   *Snapshots
	capacity    atomic.Pointer[capacity.Publisher] // set once the caches are filled
	chores      *chores
	trash       *trash
	steering    *steering
	expander    *expander
	events      record.EventBroadcaster
}

// New validates the configuration. It talks to nobody.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil {
		return nil, fmt.Errorf("%w: the controller needs a way to the API server", volume.ErrInvalid)
	}
	store, err := ledger.NewClient(cfg.REST)
	if err != nil {
		return nil, err
	}
	c := rest.CopyConfig(cfg.REST)
	c.QPS = -1 // the API server's fairness is the limit
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("client for Kubernetes: %w", err)
	}
	out, err := newController(cfg, client, store)
	if err != nil {
		return nil, err
	}
	out.provisioner.snapshots = apiSnapshots{client.CoreV1().RESTClient()}
	return out, nil
}

func newController(cfg Config, client kubernetes.Interface, store ledger.Store) (*Controller, error) {
	if cfg.Driver == "" || cfg.Namespace == "" || cfg.Log == nil || cfg.Workers < 0 {
		return nil, fmt.Errorf("%w: the controller needs a driver name, a namespace and a log, and no negative number of workers", volume.ErrInvalid)
	}
	if cfg.Workers == 0 {
		cfg.Workers = DefaultWorkers
	}
	view, err := ledger.NewView(store)
	if err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, client: client, view: view}
	c.factory = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	core := c.factory.Core().V1()
	c.claims = &wakeable{SharedIndexInformer: core.PersistentVolumeClaims().Informer()}
	c.pvs = &wakeable{SharedIndexInformer: core.PersistentVolumes().Informer()}
	c.classes = c.factory.Storage().V1().StorageClasses().Lister()
	c.nodes = core.Nodes().Lister()
	c.events = record.NewBroadcaster()
	err = c.pvs.AddIndexers(cache.Indexers{byVolume: func(o any) ([]string, error) {
		if pv, ok := o.(*corev1.PersistentVolume); ok {
			return []string{volumeBehind(cfg.Driver, pv)}, nil
		}
		return nil, nil
	}})
	if err == nil {
		err = c.claims.AddIndexers(cache.Indexers{byAwaited: awaited})
	}
	if err != nil {
		return nil, err
	}
	c.assemble()
	return c, c.watch()
}

// byVolume indexes PersistentVolumes by the PlinthVolume behind them.
const byVolume = "plinthVolume"

func (c *Controller) holders(name string) []*corev1.PersistentVolume {
	found, err := c.pvs.GetIndexer().ByIndex(byVolume, name)
	if err != nil {
		return nil // there is such an index
	}
	out := make([]*corev1.PersistentVolume, 0, len(found))
	for _, o := range found {
		if pv, ok := o.(*corev1.PersistentVolume); ok {
			out = append(out, pv)
		}
	}
	return out
}

func (c *Controller) assemble() {
	pvLister := c.factory.Core().V1().PersistentVolumes().Lister()
	claimLister := c.factory.Core().V1().PersistentVolumeClaims().Lister()
	found := lookups{
		class: func(name string) *storagev1.StorageClass { return orNil(c.classes.Get(name)) },
		claim: func(namespace, name string) *corev1.PersistentVolumeClaim {
			return orNil(claimLister.PersistentVolumeClaims(namespace).Get(name))
		},
		volume:  func(name string) *corev1.PersistentVolume { return orNil(pvLister.Get(name)) },
		holders: c.holders, attributes: c.attributes.get,
	}
	shared := core{
		driver: c.cfg.Driver, view: c.view, slow: &slowNodes{},
		patience: defaultPatience, callPatience: defaultCallPatience,
		picture: newPicture(func(name string) *corev1.Node { return orNil(c.nodes.Get(name)) }),
	}
	c.volumes, c.snapshots = &Volumes{core: shared}, &Snapshots{core: shared}
	c.provisioner = &Provisioner{
		core: shared, lookup: found, limiter: newLimiter(), resting: newResting(), freeing: &freeing{}, log: c.cfg.Log,
		parked: newParked(func(r placement.Request) bool { return shared.picture.fits(r) == nil }, c.wakeClaim),
		events: c.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
	}
	c.chores = newChores(c.cfg.Driver, c.provisioner.events, c.view, found, c.nodes, c.provisioner.resting, shared.picture.heir, c.cfg.Log)
	c.provisioner.orphaned = c.chores.volume
	c.trash = newTrash(c.view, found, c.cfg.Log)
	c.steering = newSteering(c.provisioner, c.client, func(name string) *corev1.Node { return orNil(c.nodes.Get(name)) }, c.cfg.Log)
	c.expander = newExpander(c.cfg.Driver, c.client, c.view, found, c.provisioner.events, c.cfg.Log)
}

// Volumes is what the CSI controller service asks for.
func (c *Controller) Volumes() *Volumes { return c.volumes }

// Snapshots is what the CSI controller service asks for.
func (c *Controller) Snapshots() *Snapshots { return c.snapshots }

// Ready says whether the caches are filled.
func (c *Controller) Ready() bool {
	return c.view.Synced() && c.claims.HasSynced() && c.pvs.HasSynced() &&
		c.factory.Storage().V1().StorageClasses().Informer().HasSynced() &&
		c.factory.Core().V1().Nodes().Informer().HasSynced()
}

// Run provisions until ctx ends, or until another controller leads: the
// process is then to end, because what it has begun is the other's to finish.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { c.view.Run(ctx) })
	c.factory.StartWithContext(ctx)
	defer c.factory.Shutdown()
	c.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	defer c.events.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), c.Ready) {
		return nil
	}
	if err := c.watchAttributes(ctx); err != nil {
		return err
	}
	owner, err := podOwner(ctx, c.client, c.cfg.Namespace, c.cfg.PodName)
	if err != nil {
		c.cfg.Log.Warn("capacities will have no owner", logError, err)
	}
	publisher, err := capacity.New(capacity.Config{
		Driver: c.cfg.Driver, TopologyKey: TopologyKey(c.cfg.Driver), Namespace: c.cfg.Namespace, Owner: owner,
		Client: c.client, Offers: c.offers, Log: c.cfg.Log,
	})
	if err != nil {
		return err
	}
	c.capacity.Store(publisher)
	if !c.cfg.LeaderElect {
		c.lead(ctx)
		return nil
	}
	return elect(ctx, c.cfg, c.client, c.lead)
}

// lead does what only one controller may do, until ctx ends.
func (c *Controller) lead(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.provisioner.parked.run(ctx) })
	wg.Go(func() { c.provisioner.remind(ctx) })
	wg.Go(func() { c.capacity.Load().Run(ctx) })
	wg.Go(func() { c.chores.run(ctx) })
	wg.Go(func() { c.trash.run(ctx) })
	c.steering.allChanged(c.claims.GetStore())
	wg.Go(func() { c.steering.run(ctx) })
	wg.Go(func() { c.expander.run(ctx) })
	library := controller.NewProvisionController(ctx, c.client, c.cfg.Driver, c.provisioner,
		controller.LeaderElection(false), // ours is around it
		controller.ClaimsInformer(c.claims),
		controller.VolumesInformer(c.pvs),
		controller.ClassesInformer(c.factory.Storage().V1().StorageClasses().Informer()),
		controller.AddFinalizer(true),          // HonorPVReclaimPolicy
		controller.FailedProvisionThreshold(0), // never give up
		controller.FailedDeleteThreshold(0),    // never give up
		controller.RateLimiter(c.provisioner.limiter),
		controller.CreateProvisionedPVLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
		controller.Threadiness(c.cfg.Workers),
	)
	library.ControllerWaitGroup(&wg)
	library.Run(ctx)
}

// offers are for the capacity publisher.
func (c *Controller) offers() []capacity.Offer {
	classes, err := c.classes.List(labels.Everything())
	if err != nil {
		return nil
	}
	return offers(c.cfg.Driver, classes, c.provisioner.picture.all())
}

// slim drops what nobody here reads from an object before it is kept.
func slim(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return ledger.Strip(o)
	}
	out := &corev1.Node{}
	out.Name, out.UID, out.ResourceVersion, out.Labels = n.Name, n.UID, n.ResourceVersion, n.Labels
	out.Spec.Unschedulable = n.Spec.Unschedulable
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			cond.LastHeartbeatTime.Reset()
			out.Status.Conditions = []corev1.NodeCondition{cond}
		}
	}
	return out, nil
}

// orNil is the answer of a lister, whose only error is absence.
func orNil[T any](o *T, err error) *T {
	if err != nil {
		return nil
	}
	return o
}
