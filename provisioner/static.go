package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// Static provisioning: an administrator writes a PlinthVolume, or has a
// retained one, and a PersistentVolume that names it. The ledger follows: the
// volume gets its finalizer, is nobody's to adopt while a PersistentVolume
// names it, and is noted for the claim that is bound to that. A
// PersistentVolume that contradicts its volume gets an event that says how,
// before a pod finds out, and never has the volume deleted.

// The reasons of events on what administrators write.
const (
	eventMismatch = "VolumeMismatch" // on a PersistentVolume
	eventNoNode   = "NodeMissing"    // on a PlinthVolume
)

// held says whose v is by the PersistentVolumes that name it, if the ledger
// says otherwise.
func (c *chores) held(v *v1alpha1.PlinthVolume) (ledger.Holder, bool) {
	holders := c.lookup.holders(v.Name)
	if len(holders) != 1 || holders[0].DeletionTimestamp != nil {
		return ledger.Holder{}, false // nobody's, or not for us to say whose
	}
	phase := holders[0].Status.Phase
	over := phase == corev1.VolumeReleased || phase == corev1.VolumeFailed
	if v.Spec.TrashedUntil != nil && phase != corev1.VolumeBound || v.Spec.Retained && over {
		return ledger.Holder{}, false // thrown away, and maybe undeleted, while its PersistentVolume is about to go
	}
	to := holderOf(v)
	to.Retained = false
	if ref := holders[0].Spec.ClaimRef; ref != nil && ref.UID != "" && phase == corev1.VolumeBound {
		to.Namespace, to.Name, to.UID, to.Class = ref.Namespace, ref.Name, string(ref.UID), holders[0].Spec.StorageClassName
		if to.UID == v.Spec.ClaimUID {
			to.Class = v.Spec.StorageClassName
		}
	}
	return to, to != holderOf(v)
}

func holderOf(v *v1alpha1.PlinthVolume) ledger.Holder {
	s := v.Spec
	return ledger.Holder{Namespace: s.ClaimNamespace, Name: s.ClaimName, UID: s.ClaimUID, Class: s.StorageClassName, Retained: s.Retained, TrashKeep: s.TrashKeep}
}

// nowhere tells of a volume that no node will ever make.
func (c *chores) nowhere(v *v1alpha1.PlinthVolume) {
	if _, reported := c.view.Node(v.Spec.NodeName); reported || v.Status.Phase != "" || orNil(c.nodes.Get(v.Spec.NodeName)) != nil {
		return
	}
	about := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PlinthVolume", Name: v.Name, UID: v.UID}
	c.events.Event(about, corev1.EventTypeWarning, eventNoNode, fmt.Sprintf("there is no node %s; delete this PlinthVolume and write it with one of kubectl get plinthnodes", v.Spec.NodeName))
}

// volumeChanged is for the watch of PlinthVolumes: those that the controller
// did not write, or that have got a PersistentVolume by hand, are looked at.
func (c *chores) volumeChanged(v *v1alpha1.PlinthVolume) {
	_, differs := c.held(v)
	if differs || !slices.Contains(v.Finalizers, v1alpha1.Finalizer) || v.Spec.ClaimUID == "" && v.Status.Phase == "" {
		c.volume(v.Name)
	}
}

// settle has the ledger follow what was written by hand about v. done is
// false if there is nothing of the kind.
func (c *chores) settle(ctx context.Context, v *v1alpha1.PlinthVolume) (done bool, err error) {
	if !slices.Contains(v.Finalizers, v1alpha1.Finalizer) {
		return true, c.view.HoldVolume(ctx, v) // the change brings it here again
	}
	c.nowhere(v)
	to, differs := c.held(v)
	if !differs {
		return false, nil
	}
	_, err = c.view.AssignVolume(ctx, v, to)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return true, err
}

// persistentChanged is for the watch of PersistentVolumes: those that the
// ledger does not agree with are looked at.
func (c *chores) persistentChanged(o any) {
	pv, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return
	}
	name := volumeBehind(c.driver, pv)
	if name == "" || pv.DeletionTimestamp != nil {
		return
	}
	v, ok := c.view.Volume(name)
	if !ok {
		c.queue.Add(chore{chorePersistent, pv.Name})
		return
	}
	if _, differs := c.held(v); differs {
		c.volume(name)
	}
	if len(c.misfits(pv, v)) > 0 {
		c.queue.Add(chore{chorePersistent, pv.Name})
	}
}

// checkPersistent tells of a PersistentVolume that does not fit what it names.
func (c *chores) checkPersistent(ctx context.Context, name string) error {
	pv := c.lookup.volume(name)
	if pv == nil || pv.DeletionTimestamp != nil || pv.Status.Phase == corev1.VolumeReleased {
		return nil
	}
	behind := volumeBehind(c.driver, pv)
	if behind == "" {
		return nil
	}
	v, ok := c.view.Volume(behind)
	if !ok {
		var err error
		if _, bad := volume.ParseID(behind); bad == nil {
			v, err = c.view.GetVolume(ctx, behind) // it may have been written just before
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err != nil || v == nil {
			c.tell(pv, []error{fmt.Errorf("there is no PlinthVolume %.80q; %s", behind, naming(pv))})
			return nil
		}
	}
	c.tell(pv, c.misfits(pv, v))
	return nil
}

// naming says how a PersistentVolume names its volume.
func naming(pv *corev1.PersistentVolume) string {
	if pv.Spec.CSI != nil {
		return "spec.csi.volumeHandle is the name of one"
	}
	return "the annotation " + AnnotationVolume + " is the name of one"
}

func (c *chores) tell(pv *corev1.PersistentVolume, faults []error) {
	if len(faults) > 0 {
		c.events.Event(pv, corev1.EventTypeWarning, eventMismatch, sentence(faults))
	}
}

// misfits are the ways in which a PersistentVolume contradicts the volume that
// it names: what pods, the scheduler or its deletion would fail for.
func (c *chores) misfits(pv *corev1.PersistentVolume, v *v1alpha1.PlinthVolume) []error {
	var f []error
	if err := contradicts(pv, v); err != nil {
		f = append(f, err)
	}
	if at := pathOf(pv); at != "" && v.Status.Path != "" && at != v.Status.Path {
		f = append(f, fmt.Errorf("its path is %s, and volume %s is at %s (status.path)", at, v.Name, v.Status.Path))
	}
	if size, has := pv.Spec.Capacity.Storage(), v.Status.Size; has != nil && size.Cmp(*has) > 0 {
		f = append(f, fmt.Errorf("its capacity is %s, and volume %s has %s", size, v.Name, bytesize.Format(has.Value())))
	}
	if !v.Spec.Shared {
		if slices.ContainsFunc(pv.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return severalNodes(volume.AccessMode(m)) }) {
			f = append(f, fmt.Errorf("volume %s is on one node and cannot be used from several", v.Name))
		}
		if err := c.reach(pv, v); err != nil {
			f = append(f, err)
		}
	}
	if holders := c.lookup.holders(v.Name); len(holders) > 1 {
		f = append(f, fmt.Errorf("volume %s has %d PersistentVolumes; delete all but one, with reclaim policy Retain", v.Name, len(holders)))
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && pv.Annotations[annotationProvisioner] == "" {
		f = append(f, fmt.Errorf("its reclaim policy is Delete, which Kubernetes leaves to Plinth only with the annotation %s: %s", annotationProvisioner, c.driver))
	}
	return f
}

// contradicts says in what a PersistentVolume is of another kind than the
// volume that it names; both never change.
func contradicts(pv *corev1.PersistentVolume, v *v1alpha1.PlinthVolume) error {
	var faults []string
	if kind := typeOf(pv); kind != v.Spec.VolumeType {
		faults = append(faults, fmt.Sprintf("it is a %s PersistentVolume, and volume %s is of volumeType %s", kind, v.Name, v.Spec.VolumeType))
	}
	mode := corev1.PersistentVolumeFilesystem
	if pv.Spec.VolumeMode != nil {
		mode = *pv.Spec.VolumeMode
	}
	if string(mode) != v.Spec.VolumeMode {
		faults = append(faults, fmt.Sprintf("its volumeMode is %s, and that of volume %s is %s", mode, v.Name, v.Spec.VolumeMode))
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// reach says whether the pods of a PersistentVolume run where its volume is,
// and nowhere else.
func (c *chores) reach(pv *corev1.PersistentVolume, v *v1alpha1.PlinthVolume) error {
	wants := fmt.Errorf("volume %s is on node %s alone; spec.nodeAffinity must require that node, as by %s in [%s]", v.Name, v.Spec.NodeName, TopologyKey(c.driver), v.Spec.NodeName)
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return wants
	}
	selector, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	if err != nil {
		return wants
	}
	for _, report := range c.view.Nodes() {
		node := orNil(c.nodes.Get(report.Name))
		if node != nil && selector.Match(node) != (node.Name == v.Spec.NodeName) {
			return wants
		}
	}
	return nil
}

func typeOf(pv *corev1.PersistentVolume) v1alpha1.VolumeType {
	switch {
	case pv.Spec.CSI != nil:
		return v1alpha1.VolumeTypeCSI
	case pv.Spec.Local != nil:
		return v1alpha1.VolumeTypeLocal
	}
	return v1alpha1.VolumeTypeHostPath
}

// pathOf is where a PersistentVolume over a path is; "" for others.
func pathOf(pv *corev1.PersistentVolume) string {
	switch {
	case pv.Spec.Local != nil:
		return pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path
	}
	return ""
}
