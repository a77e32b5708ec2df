package agent

import (
	"context"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// modify gives a volume the attributes that its object asks for and says in
// the status, which the caller writes, whether they hold. What the pool refused
// is not tried again until the intent changes, of which fresh tells.
func (a *Agent) modify(ctx context.Context, v *v1alpha1.PlinthVolume, fresh bool) error {
	want := ledger.AttributesOf(v.Spec.Attributes)
	if want == ledger.AttributesOf(v.Status.Attributes) {
		v.Status.AttributesReason, v.Status.AttributesMessage = "", ""
		return nil
	}
	if !fresh && final(v.Status.AttributesReason) {
		return nil
	}
	made, err := a.cfg.Engine.Modify(ctx, volume.ID(v.Name), want)
	if ctx.Err() != nil {
		return err
	}
	v.Status.ObservedGeneration = v.Generation
	if err == nil {
		v.Status.Attributes = ledger.AttributesIn(made.Attributes)
		v.Status.AttributesReason, v.Status.AttributesMessage = "", ""
		return nil
	}
	v.Status.AttributesReason, v.Status.AttributesMessage = reasonOf(err), err.Error()
	if final(v.Status.AttributesReason) {
		return nil
	}
	return err
}
