package agent

import (
	"context"
	"errors"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// release makes a retained volume a plain directory. Its object stays, and
// says where that is, until somebody deletes it. Where it goes can never be
// changed, so whatever is in the way is waited for.
func (a *Agent) release(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	if v.Status.Phase == v1alpha1.VolumeReleased {
		return nil
	}
	id := volume.ID(v.Name)
	var err error
	if v.Spec.VolumeType != v1alpha1.VolumeTypeCSI {
		if err = a.cfg.Engine.Unexpose(ctx, id); errors.Is(err, volume.ErrNotFound) {
			err = nil
		}
	}
	var path string
	if err == nil {
		path, err = a.cfg.Engine.Release(ctx, v.Spec.Pool, id, volume.Path(v.Spec.ReleaseTo))
	}
	defer a.changed()
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		v.Status.Reason, v.Status.Message = reasonOf(err), err.Error()
		return errors.Join(err, a.write(ctx, v))
	}
	a.checked(v.Name)
	v.Status.Phase, v.Status.Path, v.Status.Reason, v.Status.Message = v1alpha1.VolumeReleased, path, "", ""
	return a.write(ctx, v)
}
