package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// The reasons of events about expansion, as the csi-resizer has them.
const (
	eventResizing     = "Resizing"
	eventResizeFailed = "VolumeResizeFailed"
	eventResized      = "VolumeResizeSuccessful"
)

// expander grows claims of the types local and hostPath, for which there is no
// standard resizer. It follows the protocol of KEP-1790: what is being tried
// is written to the claim first, and a try that cannot succeed is given up
// when the user asks for less. The agent does all of the work, so kubelet has
// nothing left to do.
type expander struct {
	driver string
	client kubernetes.Interface
	view   *ledger.View
	lookup lookups
	events record.EventRecorder
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu    sync.Mutex
	tried map[types.UID]refusal // claims whose last try was refused; it is tried again after a while
}

// refusal is what was tried in vain, and when.
type refusal struct {
	size resource.Quantity
	at   time.Time
}

func newExpander(driver string, client kubernetes.Interface, view *ledger.View, lookup lookups, events record.EventRecorder, log *slog.Logger) *expander {
	return &expander{
		driver: driver, client: client, view: view, lookup: lookup, events: events, log: log, tried: map[types.UID]refusal{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry)),
	}
}

// claimChanged is for the watch of claims.
func (x *expander) claimChanged(o any) {
	if claim, ok := o.(*corev1.PersistentVolumeClaim); ok && growing(claim) {
		x.queue.Add(types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name})
	}
}

// volumeChanged is for the watch of PlinthVolumes.
func (x *expander) volumeChanged(v *v1alpha1.PlinthVolume) {
	if v.Spec.VolumeType == v1alpha1.VolumeTypeCSI || v.Status.Size == nil {
		return
	}
	x.claimChanged(x.lookup.claim(v.Spec.ClaimNamespace, v.Spec.ClaimName))
}

// forget is for a claim that is gone.
func (x *expander) forget(uid types.UID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.tried, uid)
}

// run works until ctx ends. The queue has gathered what came before.
func (x *expander) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		x.queue.ShutDown()
	})
	for {
		key, over := x.queue.Get()
		if over {
			return
		}
		err := x.grow(ctx, key)
		switch {
		case err == nil, apierrors.IsNotFound(err):
			x.queue.Forget(key)
		case ctx.Err() == nil:
			if !apierrors.IsConflict(err) {
				x.log.Warn("expansion is to be tried again", logClaim, key.String(), logError, err)
			}
			x.queue.AddRateLimited(key)
		}
		x.queue.Done(key)
	}
}

// growing says whether a claim wants more than it has, or has tried to.
func growing(claim *corev1.PersistentVolumeClaim) bool {
	if claim == nil || claim.Status.Phase != corev1.ClaimBound || claim.DeletionTimestamp != nil {
		return false
	}
	asked, has := sizes(claim)
	return asked.Cmp(has) > 0 || resizeStatus(claim) != ""
}

func sizes(claim *corev1.PersistentVolumeClaim) (asked, has resource.Quantity) {
	return claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
}

func resizeStatus(claim *corev1.PersistentVolumeClaim) corev1.ClaimResourceStatus {
	return claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}

// grow takes the expansion of one claim one step further. The next step comes
// with the change that this one brings.
func (x *expander) grow(ctx context.Context, key types.NamespacedName) error {
	claim := x.lookup.claim(key.Namespace, key.Name)
	if !growing(claim) {
		return nil
	}
	pv := x.lookup.volume(claim.Spec.VolumeName)
	if pv == nil {
		return nil
	}
	v, ok := x.view.Volume(volumeBehind(x.driver, pv))
	if !ok || !serves(pv, claim, v) {
		return nil
	}
	want := wanted(claim, v)
	switch {
	case v.Status.Size.Cmp(want) >= 0:
		return x.finish(ctx, claim, pv, *v.Status.Size)
	case v.Spec.Size.Cmp(want) < 0:
		return x.begin(ctx, claim, v, want)
	case denied(v):
		return x.giveUp(ctx, claim, v)
	case v.Status.Reason != "" && v.Status.ObservedGeneration >= v.Generation:
		x.events.Event(claim, corev1.EventTypeWarning, eventResizeFailed, fmt.Sprintf("volume %s has not grown to %s yet%s", v.Name, bytesize.Format(want.Value()), because(v)))
	}
	return nil
}

// serves says whether an expansion is ours to do: the claim has a volume that
// was made, and uses it by its path.
func serves(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim, v *v1alpha1.PlinthVolume) bool {
	var path string
	switch {
	case pv.Spec.Local != nil:
		path = pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		path = pv.Spec.HostPath.Path
	}
	return path != "" && path == v.Status.Path && v.Status.Size != nil && v.DeletionTimestamp == nil &&
		pv.Spec.ClaimRef != nil && pv.Spec.ClaimRef.UID == claim.UID
}

// wanted is the size to grow to: what was begun, unless it was refused, goes
// before what is asked now, because it may have happened.
func wanted(claim *corev1.PersistentVolumeClaim, v *v1alpha1.PlinthVolume) resource.Quantity {
	asked, _ := sizes(claim)
	begun, ok := claim.Status.AllocatedResources[corev1.ResourceStorage]
	if ok && resizeStatus(claim) == corev1.PersistentVolumeClaimControllerResizeInProgress && begun.Cmp(asked) > 0 && !denied(v) {
		return begun
	}
	return asked
}

// denied says whether the node has answered that a growth cannot be.
func denied(v *v1alpha1.PlinthVolume) bool {
	if v.Spec.Size.Cmp(*v.Status.Size) <= 0 || v.Status.ObservedGeneration < v.Generation {
		return false
	}
	switch v.Status.Reason {
	case v1alpha1.ReasonNoCapacity, v1alpha1.ReasonInvalid, v1alpha1.ReasonUnsupported:
		return true
	}
	return false
}

// begin writes down what is tried, at the claim and then in the ledger.
func (x *expander) begin(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *v1alpha1.PlinthVolume, want resource.Quantity) error {
	if x.resting(claim, want) {
		return nil
	}
	begun := claim.Status.AllocatedResources[corev1.ResourceStorage]
	if resizeStatus(claim) != corev1.PersistentVolumeClaimControllerResizeInProgress || begun.Cmp(want) != 0 {
		if err := x.patchClaim(ctx, claim, inProgress(claim, want)); err != nil {
			return err
		}
		x.events.Event(claim, corev1.EventTypeNormal, eventResizing, "growing volume "+v.Name+" to "+bytesize.Format(want.Value()))
	}
	_, err := x.view.ResizeVolume(ctx, v, want)
	return err
}

// resting says whether it is too early to try again what was refused, and has
// the claim come back when it is not.
func (x *expander) resting(claim *corev1.PersistentVolumeClaim, want resource.Quantity) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	last, ok := x.tried[claim.UID]
	left := netRetry - time.Since(last.at)
	if !ok || left <= 0 || last.size.Cmp(want) != 0 {
		delete(x.tried, claim.UID)
		return false
	}
	x.queue.AddAfter(types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}, left)
	return true
}

// giveUp takes back what the node has refused and says so at the claim.
func (x *expander) giveUp(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *v1alpha1.PlinthVolume) error {
	tried := bytesize.Format(v.Spec.Size.Value())
	if _, err := x.view.ResizeVolume(ctx, v, *v.Status.Size); err != nil {
		return err
	}
	message := strings.TrimSpace(fmt.Sprintf("node %s cannot grow volume %s to %s%s; ask for less, or make room in pool %s",
		v.Spec.NodeName, v.Name, tried, because(v), v.Spec.Pool))
	if err := x.patchClaim(ctx, claim, infeasible(claim, v.Spec.Size, message)); err != nil {
		return err
	}
	x.mu.Lock()
	x.tried[claim.UID] = refusal{v.Spec.Size, time.Now()}
	x.mu.Unlock()
	x.events.Event(claim, corev1.EventTypeWarning, eventResizeFailed, message)
	return nil
}

// finish says what the volume has, at the PersistentVolume and then at the claim.
func (x *expander) finish(ctx context.Context, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, size resource.Quantity) error {
	if had := pv.Spec.Capacity[corev1.ResourceStorage]; had.Cmp(size) < 0 {
		if err := x.patchVolume(ctx, pv, size); err != nil {
			return err
		}
	}
	if err := x.patchClaim(ctx, claim, finished(claim, size)); err != nil {
		return err
	}
	x.forget(claim.UID)
	x.events.Event(claim, corev1.EventTypeNormal, eventResized, "volume "+pv.Name+" has "+bytesize.Format(size.Value()))
	return nil
}
