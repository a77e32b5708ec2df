package provisioner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// lost says whether nobody is to wait for a volume's node, because that was
// declared gone: its Node object was deleted. Nothing is guessed, for a node
// that is merely silent keeps its object. What such a node was to delete stays
// marked in the ledger: that is its tombstone, and should the machine come
// back, its agent frees it before it serves (Agent.Run).
//
// What is in a shared pool is not lost with the node that made it.
func (c *core) lost(v *v1alpha1.PlinthVolume) bool {
	return !v.Spec.Shared && c.picture.node(v.Spec.NodeName) == nil
}

// lostSnapshot is the same for a snapshot.
func (c *core) lostSnapshot(s *v1alpha1.PlinthSnapshot) bool {
	return !s.Spec.Shared && c.picture.node(s.Spec.NodeName) == nil
}

// forsaken says whether an order's volume is lost, and was never given to
// anybody: it is to be made elsewhere. That is known of a volume that was not
// made, and of those that this process wrote and that got no PersistentVolume.
func (p *Provisioner) forsaken(w *order, v *v1alpha1.PlinthVolume) bool {
	return v != nil && w.adopts == "" && v.DeletionTimestamp == nil && p.lost(v) &&
		(v.Status.Size == nil || p.resting.never(v.Name))
}

// bury leaves a tombstone of a forsaken volume, should its machine come back
// with a part of it, so that the order gets another one.
func (p *Provisioner) bury(ctx context.Context, w *order, v *v1alpha1.PlinthVolume) error {
	p.resting.take(w.claim.UID)
	message := fmt.Sprintf("node %s, which was to make the volume in pool %s, was deleted from the cluster; the volume is to be made elsewhere", v.Spec.NodeName, v.Spec.Pool)
	if err := p.view.ExpireVolume(ctx, v); err != nil {
		return fmt.Errorf("%s: %w", message, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	// Until the watch has brought it, for the order to see that its name is taken.
	marked := func(now *v1alpha1.PlinthVolume) bool { return now != nil && now.DeletionTimestamp != nil }
	if _, err := p.view.Until(ctx, v.Name, marked); err != nil {
		return fmt.Errorf("%s: %w", message, err)
	}
	p.events.Event(w.claim, corev1.EventTypeWarning, eventNodeGone, message)
	return nil
}

// successor is the name of the PlinthVolume for a claim's PersistentVolume: its
// own or, where that is the name of a tombstone, the same with a number, whether
// there is such a volume or not.
func (p *Provisioner) successor(name string, claim types.UID) string {
	waits := ""
	for _, v := range p.view.VolumesOf(string(claim)) {
		switch {
		case v.Name != name && !strings.HasPrefix(v.Name, name+"-"): // adopted
		case v.DeletionTimestamp == nil:
			return v.Name
		case !p.lost(v):
			waits = v.Name // its node clears it away
		}
	}
	if waits != "" {
		return waits
	}
	next := name
	for i := 2; ; i++ {
		if _, taken := p.view.Volume(next); !taken {
			return next
		}
		next = fmt.Sprintf("%s-%d", name, i)
	}
}

// heir names a node in good order that serves a shared pool; "" if there is none.
func (p *picture) heir(pool string) string {
	for _, n := range p.all() {
		if n.Away == "" && slices.ContainsFunc(n.Pools, func(s volume.PoolStatus) bool {
			return s.Name == pool && s.Shared && s.State == volume.PoolReady
		}) {
			return n.Name
		}
	}
	return ""
}

// nodeGone has the PersistentVolumes go that wait for a node which was
// declared gone, claims that wait for it be placed elsewhere, and what it
// looked after in shared pools go to another.
func (c *Controller) nodeGone(name string) {
	for _, uid := range c.provisioner.resting.takeOn(name) {
		c.wakeClaim(uid)
	}
	for _, s := range c.view.Snapshots() {
		if s.Spec.Shared && s.Spec.NodeName == name {
			c.chores.snapshot(s.Name)
		}
	}
	for _, v := range c.view.VolumesOn(name) {
		if v.Spec.Shared {
			c.chores.volume(v.Name)
			continue
		}
		for _, pv := range c.provisioner.freeing.take(v.Name) {
			c.wakeVolume(pv)
		}
	}
}
