// Package capacity publishes what can be provisioned where, as
// CSIStorageCapacity objects that the scheduler reads before it chooses a node
// for a pod whose claims wait for it. There is one for each StorageClass and
// node, and one for each StorageClass and shared pool over the nodes that have
// it. They are written when what they say changes, never by a timer.
package capacity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The labels of the objects, as external-provisioner sets them.
const (
	LabelDriver    = "csi.storage.k8s.io/drivername"
	LabelManagedBy = "csi.storage.k8s.io/managed-by"
	managedBy      = "plinth-controller"
)

const (
	logError = "error"
	// gather is how long changes are gathered before they are written.
	gather = 300 * time.Millisecond
	// writers is how many objects are written at a time.
	writers = 8
)

// Offer is what one StorageClass can give in one place.
type Offer struct {
	Class string
	Place string   // names the place within the class, for the object's name
	Nodes []string // where it is; sorted
	// Available is the sum over the pools there, Max the largest volume; bytes.
	Available, Max int64
}

// Config is what a Publisher needs.
type Config struct {
	Driver      string
	TopologyKey string
	Namespace   string                 // where the objects are
	Owner       *metav1.OwnerReference // with which they vanish; nil for none
	Client      kubernetes.Interface
	Offers      func() []Offer // all there are, computed from caches
	Log         *slog.Logger
}

// Publisher is made by New and runs once.
type Publisher struct {
	cfg      Config
	existing cache.SharedIndexInformer
	due      chan struct{}
}

// New validates the configuration.
func New(cfg Config) (*Publisher, error) {
	if cfg.Driver == "" || cfg.TopologyKey == "" || cfg.Namespace == "" || cfg.Client == nil || cfg.Offers == nil || cfg.Log == nil {
		return nil, fmt.Errorf("%w: publishing capacity needs a driver, a topology key, a namespace, a client, offers and a log", volume.ErrInvalid)
	}
	p := &Publisher{cfg: cfg, due: make(chan struct{}, 1)}
	factory := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithNamespace(cfg.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.LabelSelector = LabelDriver + "=" + cfg.Driver + "," + LabelManagedBy + "=" + managedBy
		}),
		informers.WithTransform(func(o any) (any, error) {
			if c, ok := o.(*storagev1.CSIStorageCapacity); ok {
				c.ManagedFields = nil
			}
			return o, nil
		}))
	p.existing = factory.Storage().V1().CSIStorageCapacities().Informer()
	// Our own writes come back here too: the look that follows finds that all
	// is well, or what a write met in the meantime.
	_, err := p.existing.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.Changed() },
		UpdateFunc: func(_, _ any) { p.Changed() },
		DeleteFunc: func(any) { p.Changed() },
	})
	if err != nil {
		return nil, fmt.Errorf("capacity: %w", err)
	}
	return p, nil
}

// Changed has the objects looked at soon.
func (p *Publisher) Changed() {
	select {
	case p.due <- struct{}{}:
	default: // it is due already
	}
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.existing.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), p.existing.HasSynced) {
		return
	}
	p.Changed()
	for {
		select {
		case <-p.due:
		case <-ctx.Done():
			return
		}
		if err := p.Sync(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("capacity cannot be published", logError, err)
			p.Changed()
		}
		select {
		case <-time.After(gather):
		case <-ctx.Done():
			return
		}
	}
}

// Sync makes the objects say what the offers say.
func (p *Publisher) Sync(ctx context.Context) error {
	wanted := map[string]*storagev1.CSIStorageCapacity{}
	for _, o := range p.cfg.Offers() {
		c := p.object(o)
		wanted[c.Name] = c
	}
	var todo []func() error
	client := p.cfg.Client.StorageV1().CSIStorageCapacities(p.cfg.Namespace)
	for _, o := range p.existing.GetStore().List() {
		is, ok := o.(*storagev1.CSIStorageCapacity)
		if !ok {
			continue
		}
		want := wanted[is.Name]
		delete(wanted, is.Name)
		switch {
		case want == nil:
			todo = append(todo, func() error { return client.Delete(ctx, is.Name, metav1.DeleteOptions{}) })
		case !same(is, want):
			want.ResourceVersion = is.ResourceVersion
			todo = append(todo, func() error {
				_, err := client.Update(ctx, want, metav1.UpdateOptions{})
				return err
			})
		}
	}
	for _, want := range wanted {
		todo = append(todo, func() error {
			_, err := client.Create(ctx, want, metav1.CreateOptions{})
			return err
		})
	}
	return inParallel(todo)
}

// inParallel does everything and joins the errors, but for those that only
// say that the watch is behind: its next event has all looked at again.
func inParallel(todo []func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(todo))
	slots := make(chan struct{}, writers)
	for i, do := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(); !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *Publisher) object(o Offer) *storagev1.CSIStorageCapacity {
	c := &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{
			Name:      name(p.cfg.Driver, o),
			Namespace: p.cfg.Namespace,
			Labels:    map[string]string{LabelDriver: p.cfg.Driver, LabelManagedBy: managedBy},
		},
		StorageClassName:  o.Class,
		NodeTopology:      p.topology(o.Nodes),
		Capacity:          resource.NewQuantity(o.Available, resource.BinarySI),
		MaximumVolumeSize: resource.NewQuantity(o.Max, resource.BinarySI),
	}
	if p.cfg.Owner != nil {
		c.OwnerReferences = []metav1.OwnerReference{*p.cfg.Owner}
	}
	return c
}

func (p *Publisher) topology(nodes []string) *metav1.LabelSelector {
	if len(nodes) == 1 {
		return &metav1.LabelSelector{MatchLabels: map[string]string{p.cfg.TopologyKey: nodes[0]}}
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: p.cfg.TopologyKey, Operator: metav1.LabelSelectorOpIn, Values: nodes,
	}}}
}

// name is the same for the same class and place, whoever computes it, so that
// two controllers at a change of leader write one object and not two.
func name(driver string, o Offer) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{driver, o.Class, o.Place}, "\x00")))
	return "plinth-" + hex.EncodeToString(sum[:10])
}

// same compares what matters. The class and the topology of an object cannot
// change (storage.k8s.io/v1), but the nodes of a shared pool do: such an
// object goes and a new one comes, because its nodes are in its name.
func same(is, want *storagev1.CSIStorageCapacity) bool {
	return is.Capacity != nil && is.Capacity.Cmp(*want.Capacity) == 0 &&
		is.MaximumVolumeSize != nil && is.MaximumVolumeSize.Cmp(*want.MaximumVolumeSize) == 0 &&
		equality.Semantic.DeepEqual(is.OwnerReferences, want.OwnerReferences) &&
		equality.Semantic.DeepEqual(is.Labels, want.Labels)
}
