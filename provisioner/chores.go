package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// chores keep the ledger tidy, one object at a time:
//
//   - A PlinthNode is owned by its Node, so that it goes when the Node goes:
//     deleting a Node is how an administrator says that a machine is no more.
//     Should it come back, its agent reports again, and its volumes, whose
//     objects have stayed, are there again.
//   - A volume whose claim is gone and which never had a PersistentVolume is
//     taken back: the claim went before the node answered. That it never had
//     one is known of a volume that was not made, and of those that this
//     process wrote. Any other is marked as retained, for whoever adopts it;
//     so is one whose PersistentVolume was deleted and its data kept.
//   - A volume or snapshot in a shared pool whose node is gone is given to
//     another node that has the pool, to be grown, copied and freed.
//   - What administrators write by hand is followed, or contradicted (static.go).
type chores struct {
	driver string
	events record.EventRecorder
	view   *ledger.View
	lookup lookups
	nodes  corelisters.NodeLister
	rest   *resting
	// heir names a node that serves a shared pool, "" if there is none.
	heir  func(pool string) string
	queue workqueue.TypedRateLimitingInterface[chore]
	log   *slog.Logger
}

type chore struct{ kind, name string }

// The kinds of chores.
const (
	choreNode       = "node"
	choreVolume     = "volume"
	choreSnapshot   = "snapshot"
	chorePersistent = "persistentVolume"
)

func newChores(driver string, events record.EventRecorder, view *ledger.View, lookup lookups, nodes corelisters.NodeLister, rest *resting, heir func(pool string) string, log *slog.Logger) *chores {
	return &chores{
		driver: driver, events: events, view: view, lookup: lookup, nodes: nodes, rest: rest, heir: heir, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[chore](firstRetry, lastRetry)),
	}
}

func (c *chores) node(name string) { c.queue.Add(chore{choreNode, name}) }

func (c *chores) volume(name string) { c.queue.Add(chore{choreVolume, name}) }

func (c *chores) snapshot(name string) { c.queue.Add(chore{choreSnapshot, name}) }

// run works until ctx ends. The queue has gathered what came before.
func (c *chores) run(ctx context.Context) {
	for _, v := range c.view.Volumes() {
		c.volume(v.Name)
	}
	for _, s := range c.view.Snapshots() {
		c.snapshot(s.Name)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		c.queue.ShutDown()
	})
	for {
		todo, over := c.queue.Get()
		if over {
			return
		}
		if err := c.do(ctx, todo); err != nil && ctx.Err() == nil {
			c.log.Warn("to be tried again", todo.kind, todo.name, logError, err)
			c.queue.AddRateLimited(todo)
		} else {
			c.queue.Forget(todo)
		}
		c.queue.Done(todo)
	}
}

func (c *chores) do(ctx context.Context, todo chore) error {
	switch todo.kind {
	case choreNode:
		return c.own(ctx, todo.name)
	case chorePersistent:
		return c.checkPersistent(ctx, todo.name)
	case choreSnapshot:
		s, ok := c.view.Snapshot(todo.name)
		if !ok || !c.left(s.Spec.Shared, s.Spec.NodeName) {
			return nil
		}
		return c.bequeath(todo, s.Spec.NodeName, s.Spec.Pool, func(heir string) error { return c.view.MoveSnapshot(ctx, s, heir) })
	}
	v, ok := c.view.Volume(todo.name)
	if ok && c.left(v.Spec.Shared, v.Spec.NodeName) {
		return c.bequeath(todo, v.Spec.NodeName, v.Spec.Pool, func(heir string) error { return c.view.MoveVolume(ctx, v, heir) })
	}
	if !ok || v.DeletionTimestamp != nil {
		return nil
	}
	if done, err := c.settle(ctx, v); done || err != nil {
		return err
	}
	if v.Spec.Retained || !c.orphan(v) {
		return nil
	}
	if v.Status.Size != nil && !c.rest.never(v.Name) {
		c.log.Info("a volume without a PersistentVolume is retained", logVolume, v.Name, logNode, v.Spec.NodeName)
		kept := holderOf(v)
		kept.Retained = true
		_, err := c.view.AssignVolume(ctx, v, kept)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	c.log.Info("a volume that nobody was given is taken back: its claim is gone", logVolume, v.Name, logClaim, v.Spec.ClaimNamespace+"/"+v.Spec.ClaimName)
	return c.view.DeleteVolume(ctx, v)
}

// left says whether what is in a shared pool has lost the node that looked
// after it.
func (c *chores) left(shared bool, node string) bool {
	return shared && orNil(c.nodes.Get(node)) == nil
}

// bequeath gives what a node has left in a shared pool to another node.
func (c *chores) bequeath(what chore, from, pool string, move func(heir string) error) error {
	heir := c.heir(pool)
	if heir == "" {
		return fmt.Errorf("node %s is gone, and no other serves the shared pool %s", from, pool)
	}
	c.log.Info("what is in a shared pool goes to another node", what.kind, what.name, logNode, heir)
	if err := move(heir); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// orphan: made for a claim that is gone, and without a PersistentVolume.
func (c *chores) orphan(v *v1alpha1.PlinthVolume) bool {
	if v.Spec.ClaimUID == "" || len(c.lookup.holders(v.Name)) > 0 {
		return false
	}
	claim := c.lookup.claim(v.Spec.ClaimNamespace, v.Spec.ClaimName)
	return claim == nil || string(claim.UID) != v.Spec.ClaimUID
}

func (c *chores) own(ctx context.Context, name string) error {
	report, ok := c.view.Node(name)
	node := orNil(c.nodes.Get(name))
	if !ok || node == nil {
		return nil
	}
	owner := metav1.OwnerReference{APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID}
	if len(report.OwnerReferences) == 1 && report.OwnerReferences[0] == owner {
		return nil
	}
	if err := c.view.OwnNode(ctx, report, owner); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
