package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// attributesClassOf names the VolumeAttributesClass of a claim, or "".
func attributesClassOf(claim *corev1.PersistentVolumeClaim) string {
	if name := claim.Spec.VolumeAttributesClassName; name != nil {
		return *name
	}
	return ""
}

// attributesClass is the same for a PersistentVolume; nil for none.
func (o *order) attributesClass() *string {
	if attributesClassOf(o.claim) == "" {
		return nil
	}
	return o.claim.Spec.VolumeAttributesClassName
}

// order is the function read, and takes the claim's VolumeAttributesClass in.
func (p *Provisioner) order(name string, claim *corev1.PersistentVolumeClaim, sc *storagev1.StorageClass, node string) (order, error) {
	o, err := read(p.driver, name, claim, sc, node)
	if err == nil && attributesClassOf(claim) != "" {
		err = o.readAttributes(p.driver, p.lookup.attributes(attributesClassOf(claim)))
	}
	return o, err
}

// readAttributes reads the claim's class, nil if there is none of that name.
func (o *order) readAttributes(driver string, class *storagev1.VolumeAttributesClass) error {
	name := attributesClassOf(o.claim)
	switch {
	case o.class.Type != v1alpha1.VolumeTypeCSI: // a PersistentVolume of another type cannot name it
		return fmt.Errorf("%w: volumeAttributesClassName needs a volume of volumeType csi, and the StorageClass makes %s; leave it out, or use another StorageClass", volume.ErrInvalid, o.class.Type)
	case class == nil:
		return fmt.Errorf("%w: VolumeAttributesClass %s does not exist; make it, and the claim goes on", volume.ErrInvalid, name)
	case class.DriverName != driver:
		return fmt.Errorf("%w: VolumeAttributesClass %s is of driver %s, and the StorageClass of %s", volume.ErrInvalid, name, class.DriverName, driver)
	}
	a, err := volume.Attributes{}.With(class.Parameters)
	if err != nil {
		return fmt.Errorf("VolumeAttributesClass %s: %w", name, err)
	}
	if o.attributes = a; a != (volume.Attributes{}) {
		o.place.Needs = append(o.place.Needs, volume.AbleAttributes)
	}
	return nil
}

// Modify gives a volume those attributes, all of them (driver.Modifier). What
// its node refuses is taken back, so that others can follow.
func (s *Volumes) Modify(ctx context.Context, id volume.ID, a volume.Attributes) (volume.Volume, error) {
	v, cached, err := s.read(ctx, id)
	if err != nil {
		return volume.Volume{}, err
	}
	if v.Status.Size == nil {
		return volume.Volume{}, fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	if err := a.Check(); err != nil {
		return volume.Volume{}, err
	}
	holds := func(v *v1alpha1.PlinthVolume) bool { return ledger.AttributesOf(v.Status.Attributes) == a }
	if ledger.AttributesOf(v.Spec.Attributes) != a {
		if v, err = s.view.ModifyVolume(ctx, v, v1alpha1.VolumeAttributes{InodeLimit: a.Inodes, SoftLimit: int32(a.SoftLimit)}); err != nil { //nolint:gosec // a percentage
			return volume.Volume{}, err
		}
		cached = false
	}
	asked := v.Generation
	answered := func(v *v1alpha1.PlinthVolume) bool {
		return v.Status.ObservedGeneration >= asked && v.Status.AttributesReason != ""
	}
	v, err = s.await(ctx, v, cached, s.callPatience, func(v *v1alpha1.PlinthVolume) bool {
		return v == nil || v.Generation >= asked && (holds(v) || answered(v))
	})
	switch {
	case err != nil:
		return volume.Volume{}, busy(err)
	case gone(v):
		return volume.Volume{}, fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	case holds(v):
		return describe(v), nil
	case !answered(v):
		return volume.Volume{}, fmt.Errorf("%w: node %s has not modified volume %s yet", volume.ErrBusy, v.Spec.NodeName, id)
	}
	fault := fmt.Errorf("%w: node %s: %s", sentinel(v.Status.AttributesReason), v.Spec.NodeName, v.Status.AttributesMessage)
	return volume.Volume{}, errors.Join(fault, s.takeBackAttributes(ctx, v))
}

// takeBackAttributes undoes the intent to modify v, and returns once the view
// knows: the next call must not take the old intent for its own.
func (s *Volumes) takeBackAttributes(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	var now v1alpha1.VolumeAttributes
	if v.Status.Attributes != nil {
		now = *v.Status.Attributes
	}
	back, err := s.view.ModifyVolume(ctx, v, now)
	if err != nil {
		return err
	}
	_, err = s.await(ctx, back, true, s.callPatience, func(now *v1alpha1.PlinthVolume) bool {
		return now == nil || now.Generation >= back.Generation
	})
	return err
}

// attributesClasses are those of the cluster, once they are watched.
type attributesClasses struct {
	lister atomic.Pointer[storagelisters.VolumeAttributesClassLister]
}

func (a *attributesClasses) get(name string) *storagev1.VolumeAttributesClass {
	if l := a.lister.Load(); l != nil {
		return orNil((*l).Get(name))
	}
	return nil
}

// watchAttributes begins to watch the VolumeAttributesClasses, in a cluster
// that has them (Kubernetes 1.34), and returns when they are known.
func (c *Controller) watchAttributes(ctx context.Context) error {
	list, err := c.client.Discovery().ServerResourcesForGroupVersion(storagev1.SchemeGroupVersion.String())
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("looking for VolumeAttributesClasses: %w", err)
	}
	if list == nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "volumeattributesclasses" }) {
		return nil
	}
	classes := c.factory.Storage().V1().VolumeAttributesClasses()
	_, err = classes.Informer().AddEventHandler(everyChange(func(o any) {
		if class, ok := o.(*storagev1.VolumeAttributesClass); ok {
			c.provisioner.parked.attributesChanged(class.Name)
		}
	}))
	if err != nil {
		return fmt.Errorf("watching VolumeAttributesClasses: %w", err)
	}
	c.factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), classes.Informer().HasSynced) {
		return ctx.Err()
	}
	lister := classes.Lister()
	c.attributes.lister.Store(&lister)
	return nil
}
