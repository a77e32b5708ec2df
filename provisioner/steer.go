package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The reasons of the steering's events.
const (
	eventSteered  = "SteeredToSource"
	eventExcluded = "SourceNodeExcluded"
	eventWaits    = "WaitingForSource"
)

// lastSteer bounds the wait between two tries to steer a claim.
const lastSteer = time.Minute

// errExcluded: a pod of the claim does not let itself be scheduled where the
// claim's data is. Its constraints never change, but the pod may be replaced.
var errExcluded = errors.New("a pod excludes the node of the source")

// steering brings pods to where the data of their claims is. A claim that
// waits for its first consumer and starts with a snapshot or a volume of one
// node, or adopts one, can be on that node alone. The scheduler honours the claim's
// selected-node annotation and no other node is tried then, so it is set
// before a pod is scheduled.
type steering struct {
	provisioner *Provisioner
	client      kubernetes.Interface
	node        func(name string) *corev1.Node
	queue       workqueue.TypedRateLimitingInterface[cache.ObjectName]
	log         *slog.Logger
}

func newSteering(p *Provisioner, client kubernetes.Interface, node func(string) *corev1.Node, log *slog.Logger) *steering {
	return &steering{
		provisioner: p, client: client, node: node, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](firstRetry, lastSteer)),
	}
}

// allChanged queues every claim that might have to be steered.
func (s *steering) allChanged(claims cache.Store) {
	for _, o := range claims.List() {
		s.claimChanged(o)
	}
}

// claimChanged queues a claim that might have to be steered.
func (s *steering) claimChanged(o any) {
	if c, ok := o.(*corev1.PersistentVolumeClaim); ok && s.waits(c) {
		s.queue.Add(cache.ObjectName{Namespace: c.Namespace, Name: c.Name})
	}
}

// waits says whether a claim of ours with a source has no node yet.
func (s *steering) waits(c *corev1.PersistentVolumeClaim) bool {
	if c.DeletionTimestamp != nil || c.Spec.VolumeName != "" || c.Annotations[selectedNode] != "" ||
		c.Spec.DataSource == nil && c.Spec.DataSourceRef == nil && c.Annotations[AnnotationAdopt] == "" || c.Spec.StorageClassName == nil {
		return false
	}
	sc := s.provisioner.lookup.class(*c.Spec.StorageClassName)
	return sc != nil && sc.Provisioner == s.provisioner.driver && delayed(sc)
}

// run works until ctx ends.
func (s *steering) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		s.queue.ShutDown()
	})
	for {
		name, over := s.queue.Get()
		if over {
			return
		}
		if err := s.steer(ctx, name); err != nil && ctx.Err() == nil {
			s.log.Info("a claim is not steered yet", logClaim, name.String(), logError, err)
			s.queue.AddRateLimited(name)
		} else {
			s.queue.Forget(name)
		}
		s.queue.Done(name)
	}
}

// steer sets the node of one claim. What cannot be mended by waiting is told
// to the claim and is no error.
func (s *steering) steer(ctx context.Context, name cache.ObjectName) error {
	claim := s.provisioner.lookup.claim(name.Namespace, name.Name)
	if claim == nil || !s.waits(claim) {
		return nil
	}
	at, err := s.place(ctx, claim)
	var left *controller.IgnoredError
	switch {
	case errors.As(err, &left):
		return nil
	case errors.Is(err, volume.ErrInvalid) || errors.Is(err, volume.ErrOutOfRange):
		s.provisioner.events.Event(claim, corev1.EventTypeWarning, eventFailed, err.Error())
		return nil
	case err != nil:
		s.provisioner.events.Event(claim, corev1.EventTypeNormal, eventWaits, err.Error())
		return err
	case at.shared:
		return nil // any node will do
	}
	if err := s.excluded(ctx, claim, at); err != nil {
		if errors.Is(err, errExcluded) {
			s.provisioner.events.Event(claim, corev1.EventTypeWarning, eventExcluded, err.Error())
		}
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": claim.UID, "resourceVersion": claim.ResourceVersion, "annotations": map[string]string{selectedNode: at.node},
	}})
	if err != nil {
		return err
	}
	_, err = s.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the claim has changed, and comes round again if it still waits
	}
	if err == nil {
		s.provisioner.events.Eventf(claim, corev1.EventTypeNormal, eventSteered, "%s is on node %s, where this claim's volume has to be; pods of this claim are scheduled there", at.what, at.node)
	}
	return err
}

// place is where a claim's source is, if a volume for the claim can be there.
func (s *steering) place(ctx context.Context, claim *corev1.PersistentVolumeClaim) (content, error) {
	p := s.provisioner
	w, err := p.order(volumeName(claim.UID), claim, p.lookup.class(*claim.Spec.StorageClassName), "")
	if err != nil {
		return content{}, err
	}
	if w.adopts != "" {
		v, _, err := p.adoptable(ctx, &w)
		if err != nil {
			return content{}, err
		}
		return contentIn(v), nil
	}
	from, err := p.source(ctx, claim)
	if err != nil {
		return content{}, err
	}
	at, err := p.find(ctx, from)
	if err != nil {
		return content{}, err
	}
	return at, at.keepTo(&w.place)
}

// excluded says which pod of a claim does not let itself be scheduled on the
// source's node. Pods are not watched: they are asked for when a claim with a
// source has no node, which is rare.
func (s *steering) excluded(ctx context.Context, claim *corev1.PersistentVolumeClaim, at content) error {
	node := s.node(at.node)
	if node == nil {
		return fmt.Errorf("%s is on node %s, which is not in the cluster now", at.what, at.node)
	}
	pods, err := s.client.CoreV1().Pods(claim.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		return fmt.Errorf("listing the pods of namespace %s: %w", claim.Namespace, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !usesClaim(pod, claim.Name) {
			continue
		}
		if fits, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err == nil && !fits {
			return fmt.Errorf("%w: %s is on node %s, where the claim's volume has to be, and the nodeSelector or node affinity of pod %s excludes that node; let the pod run there", errExcluded, at.what, at.node, pod.Name)
		}
	}
	return nil
}

func usesClaim(pod *corev1.Pod, claim string) bool {
	for _, v := range pod.Spec.Volumes {
		if c := v.PersistentVolumeClaim; c != nil && c.ClaimName == claim {
			return true
		}
		if v.Ephemeral != nil && pod.Name+"-"+v.Name == claim {
			return true
		}
	}
	return false
}
