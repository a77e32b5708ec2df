package provisioner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// attempts is how many places are tried in one call where the provisioner
// chooses the node.
const attempts = 3

// selectedNode is set by the scheduler on claims that wait for a consumer.
const selectedNode = "volume.kubernetes.io/selected-node"

// The reasons of the provisioner's own events; the library emits Provisioning,
// ProvisioningSucceeded and ProvisioningFailed.
const (
	eventFailed = "ProvisioningFailed"
	eventPlaced = "VolumePlaced"
	// eventNodeGone: the volume of a claim is placed anew.
	eventNodeGone = "NodeGone"
)

// lookups are what the provisioner reads besides the ledger, all from caches.
// Each returns nil for what is not there.
type lookups struct {
	class      func(name string) *storagev1.StorageClass
	claim      func(namespace, name string) *corev1.PersistentVolumeClaim
	volume     func(name string) *corev1.PersistentVolume
	attributes func(name string) *storagev1.VolumeAttributesClass
	// holders are the PersistentVolumes that a PlinthVolume is behind.
	holders func(volume string) []*corev1.PersistentVolume
}

// Provisioner makes and deletes volumes for the library.
type Provisioner struct {
	core
	lookup  lookups
	limiter *limiter
	parked  *parked
	resting *resting
	freeing *freeing
	// orphaned is told of a volume whose claim may be gone.
	orphaned func(name string)
	events   record.EventRecorder
	log      *slog.Logger
	// snapshots reads the VolumeSnapshots that claims name.
	snapshots volumeSnapshots
}

var (
	_ controller.Provisioner      = (*Provisioner)(nil)
	_ controller.BlockProvisioner = (*Provisioner)(nil)
	_ controller.Qualifier        = (*Provisioner)(nil)
)

// SupportsBlock implements controller.BlockProvisioner; which pools have
// block volumes is a matter of placement.
func (p *Provisioner) SupportsBlock(context.Context) bool { return true }

// Provision implements controller.Provisioner. It may be called again at any
// time with the same PVName and goes on from where the ledger says it stands.
func (p *Provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	p.limiter.begin(string(o.PVC.UID))
	p.resting.take(o.PVC.UID)
	w, err := p.order(o.PVName, o.PVC, o.StorageClass, o.SelectedNodeName)
	if err != nil {
		return nil, controller.ProvisioningFinished, p.park(o.PVC, o.StorageClass.Name, nil, err)
	}
	w.place.Avoid = map[placement.PoolKey]bool{}
	for range attempts {
		v, cached, err := p.findOrWrite(ctx, &w)
		if err != nil {
			return p.notPlaced(&w, err)
		}
		written := v
		if !p.forsaken(&w, v) {
			if v, err = p.await(ctx, v, cached, p.patience, settled); err != nil {
				return nil, controller.ProvisioningNoChange, err
			}
			if !settled(v) {
				v = p.rest(&w, v, !cached && v == written)
			}
		}
		if p.forsaken(&w, v) {
			if err := p.bury(ctx, &w, v); err != nil {
				return nil, controller.ProvisioningNoChange, err
			}
			continue
		}
		if !settled(v) {
			return nil, controller.ProvisioningNoChange, &controller.IgnoredError{Reason: p.waitingFor(v)}
		}
		switch {
		case gone(v): // an earlier attempt has been cleared away
		case ready(v):
			p.parked.drop(o.PVC.UID)
			p.resting.published(v.Name)
			pv, err := w.persistentVolume(p.driver, v)
			return pv, controller.ProvisioningFinished, err
		default:
			if state, err := p.turnedDown(ctx, &w, v); err != nil {
				return nil, state, err
			}
		}
	}
	return nil, controller.ProvisioningFinished, fmt.Errorf("%w: %d places were tried and none took the volume", volume.ErrNoCapacity, attempts)
}

// findOrWrite returns the order's volume, writing its intent where there is
// none. cached says that it came from the view.
func (p *Provisioner) findOrWrite(ctx context.Context, w *order) (v *v1alpha1.PlinthVolume, cached bool, err error) {
	if w.adopts != "" {
		return p.adopt(ctx, w)
	}
	w.volume = p.successor(w.name, w.claim.UID)
	if v, ok := p.view.Volume(w.volume); ok {
		return v, true, p.mine(w, v)
	}
	if c := p.lookup.claim(w.claim.Namespace, w.claim.Name); c == nil || c.UID != w.claim.UID {
		return nil, false, errClaimGone
	}
	if err := p.begin(ctx, w); err != nil {
		return nil, false, err
	}
	p.resting.writing(w.volume)
	v, at, err := p.write(ctx, w.place, w.intent)
	if err != nil {
		return nil, false, err
	}
	if at.Among > 1 {
		p.events.Eventf(w.claim, corev1.EventTypeNormal, eventPlaced, "%s", placed(at))
	}
	return v, false, p.mine(w, v)
}

// begin finds what the order's volume starts with and keeps it to that place.
func (p *Provisioner) begin(ctx context.Context, w *order) error {
	from, err := p.source(ctx, w.claim)
	if err != nil || from == (volume.Content{}) || w.anchored {
		return err
	}
	found, err := p.find(ctx, from)
	if err == nil {
		err = found.keepTo(&w.place)
	}
	w.from, w.anchored = from, err == nil && !found.shared
	return err
}

// mine refuses a volume of that name that was made for somebody else.
func (p *Provisioner) mine(w *order, v *v1alpha1.PlinthVolume) error {
	if v.Spec.ClaimUID != string(w.claim.UID) {
		return fmt.Errorf("%w: PlinthVolume %s belongs to the claim %s/%s with the UID %q", volume.ErrExists, v.Name, v.Spec.ClaimNamespace, v.Spec.ClaimName, v.Spec.ClaimUID)
	}
	return nil
}

var errClaimGone = errors.New("the claim is gone")

// rest leaves the order to be woken by the next change of its volume v, and
// returns v as it is after that was arranged: a change before is seen here, a
// change after wakes the claim. unseen says that the watch has not brought v yet.
func (p *Provisioner) rest(w *order, v *v1alpha1.PlinthVolume, unseen bool) *v1alpha1.PlinthVolume {
	p.resting.put(w.claim, v)
	if p.lookup.claim(w.claim.Namespace, w.claim.Name) == nil {
		p.orphaned(v.Name) // it went after it was looked up: there is nobody to wake
	}
	if now, ok := p.view.Volume(v.Name); ok || !unseen {
		return now
	}
	return v
}

// turnedDown takes back a volume that its node refused. Without an error
// another place is to be tried at once.
func (p *Provisioner) turnedDown(ctx context.Context, w *order, v *v1alpha1.PlinthVolume) (controller.ProvisioningState, error) {
	fault := fmt.Errorf("node %s could not make the volume in pool %s%s", v.Spec.NodeName, v.Spec.Pool, because(v))
	if err := p.view.DeleteVolume(ctx, v); err != nil {
		return controller.ProvisioningNoChange, errors.Join(fault, err)
	}
	now, err := p.await(ctx, v, true, p.patience, gone)
	if err != nil {
		return controller.ProvisioningNoChange, errors.Join(fault, err)
	}
	if now != nil {
		if now = p.rest(w, v, false); now != nil {
			return controller.ProvisioningNoChange, &controller.IgnoredError{Reason: fault.Error()}
		}
	}
	switch {
	case v.Status.Reason == v1alpha1.ReasonPathTaken:
		return controller.ProvisioningFinished, p.parkForPath(w, volume.Path(v.Spec.Path), fault)
	case !elsewhere(v):
		return controller.ProvisioningFinished, p.park(w.claim, w.sc.Name, nil, fault)
	case w.anchored:
		return controller.ProvisioningFinished, p.park(w.claim, w.sc.Name, &w.place, fault)
	case len(w.place.Nodes) > 0:
		return controller.ProvisioningReschedule, fault
	}
	w.place.Avoid[placement.PoolKey{Node: v.Spec.NodeName, Pool: v.Spec.Pool}] = true
	return "", nil
}

// notPlaced answers for an order without a place: the scheduler chooses again
// if another node could hold it, else the claim waits for one that can.
func (p *Provisioner) notPlaced(w *order, err error) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if errors.Is(err, errClaimGone) {
		return nil, controller.ProvisioningFinished, err
	}
	var refusal *placement.Refusal
	switch {
	case w.adopts != "" && !errors.Is(err, volume.ErrNoCapacity):
		return nil, controller.ProvisioningNoChange, err // the volume may become what the claim asks for
	case errors.As(err, &refusal) && !refusal.Has(placement.JustRefused):
	case errors.Is(err, volume.ErrInvalid) || errors.Is(err, volume.ErrOutOfRange):
		return nil, controller.ProvisioningFinished, p.park(w.claim, w.sc.Name, nil, err)
	case errors.Is(err, volume.ErrNoCapacity) && refusal == nil: // its source is on another node
		return nil, controller.ProvisioningReschedule, err
	default:
		return nil, controller.ProvisioningNoChange, err // tried again with a back-off
	}
	anywhere := w.place
	anywhere.Avoid = nil
	if !w.anchored {
		anywhere.Nodes = nil
	}
	if len(w.place.Nodes) > 0 && !w.anchored {
		elsewhere := p.picture.fits(anywhere)
		if elsewhere == nil {
			return nil, controller.ProvisioningReschedule, err
		}
		err = elsewhere
	}
	return nil, controller.ProvisioningFinished, p.park(w.claim, w.sc.Name, &anywhere, err)
}

// park leaves a claim until its class changes or, with a request, a place for
// it appears. It returns the fault.
func (p *Provisioner) park(claim *corev1.PersistentVolumeClaim, class string, request *placement.Request, fault error) error {
	p.limiter.rest(string(claim.UID))
	p.parked.put(claim, class, request, fault.Error())
	return fault
}
