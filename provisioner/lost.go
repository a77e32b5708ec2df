package provisioner

import (
	"slices"

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
// declared gone, and what it looked after in shared pools go to another.
func (c *Controller) nodeGone(name string) {
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
