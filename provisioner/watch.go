package provisioner

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// watch connects each watch to all that waits for its changes.
func (c *Controller) watch() error {
	if err := c.view.OnVolume(c.volumeChanged, c.volumeGone); err != nil {
		return fmt.Errorf("watching volumes: %w", err)
	}
	if err := c.view.OnNode(c.reportChanged, c.reportGone); err != nil {
		return fmt.Errorf("watching nodes: %w", err)
	}
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{c.factory.Storage().V1().StorageClasses().Informer(), everyChange(c.classChanged)},
		{c.factory.Core().V1().Nodes().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { c.nodeChanged(nil, o) },
			UpdateFunc: c.nodeChanged,
			DeleteFunc: func(o any) { c.nodeChanged(o, nil) },
		}},
		{c.claims, cache.ResourceEventHandlerFuncs{
			AddFunc:    c.claimChanged,
			UpdateFunc: func(_, now any) { c.claimChanged(now) },
			DeleteFunc: c.claimGone,
		}},
		{c.pvs, cache.ResourceEventHandlerFuncs{
			AddFunc:    c.chores.persistentChanged,
			UpdateFunc: func(_, now any) { c.chores.persistentChanged(now) },
			DeleteFunc: c.persistentGone,
		}},
	} {
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return fmt.Errorf("watching the cluster: %w", err)
		}
	}
	return nil
}

// wakeClaim has the library look at a claim; its handler reads the UID alone.
func (c *Controller) wakeClaim(uid types.UID) {
	c.claims.wake(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: uid}})
}

// wakeVolume has the library look at a PersistentVolume; its handler reads
// the name alone.
func (c *Controller) wakeVolume(name string) {
	c.pvs.wake(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

func (c *Controller) volumeChanged(was, now *v1alpha1.PlinthVolume) {
	p := c.provisioner
	p.picture.volumeChanged(now)
	c.chores.volumeChanged(now)
	if now.Spec.TrashedUntil != nil || was != nil && was.Spec.TrashedUntil != nil {
		c.trash.look(now.Name)
	}
	if was == nil || equality.Semantic.DeepEqual(was.Status, now.Status) {
		if now.Status.Phase == "" && now.DeletionTimestamp == nil {
			return // just written, by us
		}
	} else {
		p.slow.answered(now.Spec.NodeName)
	}
	if now.Status.Phase == v1alpha1.VolumeFailed {
		p.parked.nodesChanged() // its bytes are free again
	}
	c.rouse(now)
	c.nudge(awaitedVolume(now.Name))
	c.expander.volumeChanged(now)
}

func (c *Controller) volumeGone(v *v1alpha1.PlinthVolume) {
	p := c.provisioner
	p.picture.volumeGone(v)
	c.trash.look(v.Name)
	p.resting.published(v.Name)
	p.slow.answered(v.Spec.NodeName)
	p.parked.nodesChanged()
	if v.Spec.Path != "" && v.Status.Size != nil {
		p.parked.pathFree(volume.Path(v.Spec.Path))
	}
	c.rouse(v)
	c.nudge(awaitedVolume(v.Name))
	for _, pv := range p.freeing.take(v.Name) {
		c.wakeVolume(pv)
	}
}

// rouse wakes the claim of a volume if it waits for that.
func (c *Controller) rouse(v *v1alpha1.PlinthVolume) {
	uid := types.UID(v.Spec.ClaimUID)
	if uid == "" || !c.provisioner.resting.take(uid) {
		return
	}
	c.wakeClaim(uid)
	c.chores.volume(v.Name) // should the claim be gone
}

func (c *Controller) reportChanged(was, now *v1alpha1.PlinthNode) {
	c.provisioner.picture.nodeChanged(was, now)
	c.spaceChanged()
	c.chores.node(now.Name)
}

func (c *Controller) reportGone(n *v1alpha1.PlinthNode) {
	c.provisioner.picture.nodeGone(n)
	c.spaceChanged()
}

func (c *Controller) nodeChanged(was, now any) {
	if t, ok := was.(cache.DeletedFinalStateUnknown); ok {
		was = t.Obj
	}
	before, _ := was.(*corev1.Node)
	after, _ := now.(*corev1.Node)
	if after != nil {
		c.chores.node(after.Name)
	} else if before != nil {
		c.nodeGone(before.Name)
	}
	if before != nil && after != nil && equality.Semantic.DeepEqual(before.Labels, after.Labels) && away(before) == away(after) {
		return
	}
	c.spaceChanged()
}

func (c *Controller) spaceChanged() {
	c.provisioner.parked.nodesChanged()
	c.offersChanged()
}

func (c *Controller) offersChanged() {
	if p := c.capacity.Load(); p != nil {
		p.Changed()
	}
}

func (c *Controller) classChanged(o any) {
	if sc, ok := o.(*storagev1.StorageClass); ok {
		c.provisioner.parked.classChanged(sc.Name)
		c.steering.allChanged(c.claims.GetStore())
		c.offersChanged()
	}
}

func (c *Controller) claimChanged(o any) {
	c.steering.claimChanged(o)
	c.expander.claimChanged(o)
	if claim, ok := o.(*corev1.PersistentVolumeClaim); ok && claim.Status.Phase == corev1.ClaimBound {
		c.nudge(awaitedClaim(claim.Namespace, claim.Name))
	}
}

func (c *Controller) claimGone(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	if claim, ok := o.(*corev1.PersistentVolumeClaim); ok {
		c.provisioner.parked.drop(claim.UID)
		c.provisioner.resting.take(claim.UID)
		c.provisioner.limiter.Forget(string(claim.UID))
		c.expander.forget(claim.UID)
		for _, v := range c.view.VolumesOf(string(claim.UID)) {
			c.chores.volume(v.Name)
		}
	}
}

// persistentGone: the data of a volume whose PersistentVolume is gone, and
// which is not being deleted, is retained.
func (c *Controller) persistentGone(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	if pv, ok := o.(*corev1.PersistentVolume); ok {
		if name := volumeBehind(c.cfg.Driver, pv); name != "" {
			c.chores.volume(name)
			c.nudge(awaitedVolume(name))
			c.trash.look(name)
		}
	}
}

// volumeName is how the library names the volume of a claim.
func volumeName(uid types.UID) string { return "pvc-" + string(uid) }

func everyChange(do func(any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    do,
		UpdateFunc: func(_, o any) { do(o) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			do(o)
		},
	}
}
