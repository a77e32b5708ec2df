package provisioner

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/util"
)

// ShouldProvision implements controller.Qualifier. It says no to a claim that
// rests: its node's answer wakes it. The library asks this of every claim
// without a volume, also of those that it will not give to Provision before
// the scheduler has chosen a node, and that is the chance to explain (see the
// package comment).
func (p *Provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	if p.resting.has(claim.UID) {
		return false
	}
	class := p.lookup.class(util.GetPersistentVolumeClaimClass(claim))
	if class == nil || class.Provisioner != p.driver || !delayed(class) || claim.DeletionTimestamp != nil {
		return true
	}
	if claim.Annotations[selectedNode] != "" {
		return true
	}
	w, err := p.order("", claim, class, "")
	request := &w.place
	if err != nil {
		request = nil
	} else {
		err = p.picture.fits(w.place)
	}
	if err == nil {
		p.parked.drop(claim.UID)
		return true
	}
	if p.parked.put(claim, class.Name, request, err.Error()) {
		p.events.Event(claim, corev1.EventTypeWarning, eventFailed, err.Error())
	}
	return true
}
