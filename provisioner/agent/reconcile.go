package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// reconcile brings one volume to what its object wants. An error has it tried
// again; what only another change can mend is written down and is no error.
func (a *Agent) reconcile(ctx context.Context, name string) error {
	v, ok := a.get(name)
	if !ok {
		a.checked(name)
		return nil
	}
	v = v.DeepCopy()
	switch {
	case v.DeletionTimestamp != nil:
		return a.free(ctx, v)
	case v.Spec.ReleaseTo != "" && v.Status.Size != nil:
		return a.release(ctx, v)
	case v.Status.Size == nil && v.Status.Phase == v1alpha1.VolumeFailed && v.Status.ObservedGeneration == v.Generation:
		return nil // refused: it is for the controller to take back
	case v.Status.Size == nil && !slices.Contains(v.Finalizers, v1alpha1.Finalizer):
		return nil // written by hand: nothing is made before the controller has seen to it that its deletion frees it
	case v.Status.Size == nil:
		return a.create(ctx, v)
	case a.toCheck(name) || v.Status.Phase == v1alpha1.VolumeFailed:
		if err := a.check(ctx, v); err != nil || v.Status.Phase == v1alpha1.VolumeFailed {
			return err
		}
	}
	return a.change(ctx, v)
}

// change brings a volume that is there to what is wanted of it now.
func (a *Agent) change(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	was := v.Status.DeepCopy()
	fresh := v.Status.ObservedGeneration != v.Generation
	if now := madePhase(v); v.Status.Phase != v1alpha1.VolumeFailed {
		v.Status.Phase = now
	}
	err := a.modify(ctx, v, fresh)
	if v.Spec.Size.Cmp(*v.Status.Size) > 0 && (fresh || !final(v.Status.Reason)) {
		return errors.Join(err, a.expand(ctx, v))
	}
	if equality.Semantic.DeepEqual(was, &v.Status) {
		return err
	}
	return errors.Join(err, a.write(ctx, v))
}

// madePhase is the phase of a volume that was made and is there.
func madePhase(v *v1alpha1.PlinthVolume) v1alpha1.VolumePhase {
	switch {
	case v.Spec.TrashedUntil != nil:
		return v1alpha1.VolumeTrashed
	case v.Spec.Retained:
		return v1alpha1.VolumeRetained
	}
	return v1alpha1.VolumeReady
}

// create makes a volume for the first time.
func (a *Agent) create(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	made, err := a.cfg.Engine.Create(ctx, request(v))
	var path string
	if err == nil {
		path, err = a.expose(ctx, v)
	}
	defer a.changed()
	if err != nil {
		return a.failed(ctx, v, err)
	}
	a.checked(v.Name)
	v.Status = v1alpha1.PlinthVolumeStatus{
		Phase: madePhase(v), Size: resource.NewQuantity(made.Size, resource.BinarySI), Path: path,
		Attributes: ledger.AttributesIn(made.Attributes),
	}
	return a.write(ctx, v)
}

// expose gives the path of a volume that is used by path.
func (a *Agent) expose(ctx context.Context, v *v1alpha1.PlinthVolume) (string, error) {
	if v.Spec.VolumeType == v1alpha1.VolumeTypeCSI {
		return "", nil
	}
	return a.cfg.Engine.Expose(ctx, volume.ID(v.Name))
}

// failed writes down why a volume could not be made. What another try could
// mend is Pending and tried again; the rest is for the controller.
func (a *Agent) failed(ctx context.Context, v *v1alpha1.PlinthVolume, cause error) error {
	if ctx.Err() != nil {
		return cause // cut, not failed
	}
	reason := reasonOf(cause)
	if v.Spec.Source != nil && errors.Is(cause, volume.ErrNotFound) {
		reason = v1alpha1.ReasonSourceMissing
	}
	v.Status.Phase, v.Status.Reason, v.Status.Message = v1alpha1.VolumePending, reason, cause.Error()
	if !final(reason) {
		return errors.Join(cause, a.write(ctx, v))
	}
	v.Status.Phase = v1alpha1.VolumeFailed
	a.cfg.Log.Info("volume refused", logVolume, v.Name, logReason, reason, logError, cause)
	return a.write(ctx, v)
}

// check looks whether the data of a volume that was made is there, and says
// so in its status. It is not made again, whatever is found.
func (a *Agent) check(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	found, err := a.cfg.Engine.Get(ctx, volume.ID(v.Name))
	var path string
	if err == nil {
		path, err = a.expose(ctx, v)
	}
	switch {
	case err == nil:
		v.Status.Path = path
		v.Status.Size = resource.NewQuantity(found.Size, resource.BinarySI)
		v.Status.Attributes = ledger.AttributesIn(found.Attributes)
		v.Status.Phase = madePhase(v)
		if r := v.Status.Reason; r == v1alpha1.ReasonDataMissing || r == v1alpha1.ReasonPoolUnavailable || r == v1alpha1.ReasonInternal {
			v.Status.Reason, v.Status.Message = "", ""
		}
	case errors.Is(err, volume.ErrNotFound):
		v.Status.Phase, v.Status.Reason = v1alpha1.VolumeFailed, v1alpha1.ReasonDataMissing
		v.Status.Message = fmt.Sprintf("the volume was made and its data is not in any pool of node %s now; it is not made again", a.cfg.Node)
	case errors.Is(err, volume.ErrPoolUnavailable):
		v.Status.Phase, v.Status.Reason, v.Status.Message = v1alpha1.VolumeFailed, v1alpha1.ReasonPoolUnavailable, err.Error()
	default:
		return err
	}
	a.checked(v.Name)
	return a.write(ctx, v)
}

// expand grows a volume. That there is no room is written down and not tried
// again until the intent changes.
func (a *Agent) expand(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	grown, err := a.cfg.Engine.Expand(ctx, volume.ID(v.Name), v.Spec.Size.Value())
	if err == nil {
		_, err = a.expose(ctx, v) // nobody else grows the filesystem of one that is used by path
	}
	defer a.changed()
	if err == nil {
		v.Status.Size = resource.NewQuantity(grown.Size, resource.BinarySI)
		v.Status.Reason, v.Status.Message = "", ""
		return a.write(ctx, v)
	}
	if ctx.Err() != nil {
		return err
	}
	v.Status.Reason, v.Status.Message = reasonOf(err), err.Error()
	if final(v.Status.Reason) {
		return a.write(ctx, v)
	}
	return errors.Join(err, a.write(ctx, v))
}

// free deletes a volume and lets its object go.
func (a *Agent) free(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	if !slices.Contains(v.Finalizers, v1alpha1.Finalizer) {
		return nil
	}
	err := a.mayFree(ctx)
	if err == nil {
		err = a.delete(ctx, v)
	}
	if err == nil {
		defer a.changed()
		a.checked(v.Name)
		return mended(a.cfg.Objects.ReleaseVolume(ctx, v))
	}
	if ctx.Err() != nil {
		return err
	}
	v.Status.Reason, v.Status.Message = reasonOf(err), err.Error()
	return errors.Join(err, a.write(ctx, v))
}

// errWithdrawn: objects are deleted for the sake of their definition.
var errWithdrawn = errors.New("a CustomResourceDefinition of Plinth is being deleted and takes this object along;" +
	" its bytes are not freed: docs/operations.md says how to get the object back")

// mayFree keeps the data of a cluster whose definitions are deleted: the API
// server then marks every object as deleted, and asks no admission policy.
func (a *Agent) mayFree(ctx context.Context) error {
	withdrawn, err := a.cfg.Objects.Withdrawn(ctx)
	if err == nil && withdrawn {
		return errWithdrawn
	}
	return err
}

func (a *Agent) delete(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	id := volume.ID(v.Name)
	if v.Status.Size == nil {
		// It was never reported as made. What there is of that name may be
		// somebody else's: of another cluster, or of an object that is gone.
		if other, err := a.cfg.Engine.Get(ctx, id); err == nil && !asked(other, v) {
			a.cfg.Log.Warn("a volume of that name is not this PlinthVolume's; it is left alone", logVolume, v.Name, logPool, other.Pool)
			return nil
		}
	}
	if v.Spec.VolumeType != v1alpha1.VolumeTypeCSI {
		// One that is in no pool that serves may be in one that does not.
		// Whether that is its own, Delete knows.
		err := a.cfg.Engine.Unexpose(ctx, id)
		if err != nil && !errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrPoolUnavailable) {
			return err
		}
	}
	err := a.cfg.Engine.Delete(ctx, v.Spec.Pool, id)
	if errors.Is(err, volume.ErrExists) {
		a.cfg.Log.Warn("a volume of that name is another's; it is left alone", logVolume, v.Name, logError, err)
		return nil
	}
	refused := v.Status.Size == nil && v.Status.Phase == v1alpha1.VolumeFailed
	if refused && (errors.Is(err, volume.ErrPoolUnavailable) || errors.Is(err, volume.ErrInvalid)) {
		// It was refused for want of that pool, and its claim must not wait
		// for a disk that may never come back. Should an earlier try, cut
		// before it was reported, have left something there, it goes when the
		// pool comes.
		a.owe(id, v.Spec.Pool)
		return nil
	}
	return err
}

// asked says whether a volume is what an object asks for.
func asked(found volume.Volume, v *v1alpha1.PlinthVolume) bool {
	r := request(v)
	return found.Name == r.Name && found.Pool == r.Pool && found.Mode == r.Mode && found.Size >= r.Size
}

func (a *Agent) owe(id volume.ID, pool string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owed[id] = pool
}

// settle deletes what could not be looked at when its object was let go. No
// pod was ever given such a volume.
func (a *Agent) settle(ctx context.Context) {
	a.mu.Lock()
	owed := maps.Clone(a.owed)
	a.mu.Unlock()
	for id, pool := range owed {
		if _, there := a.get(string(id)); !there {
			if err := a.cfg.Engine.Delete(ctx, pool, id); err != nil {
				continue // its pool is still away
			}
		}
		a.mu.Lock()
		delete(a.owed, id)
		a.mu.Unlock()
	}
}

// write puts down the status of v if it says anything new.
func (a *Agent) write(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	if v.DeletionTimestamp == nil {
		v.Status.ObservedGeneration = v.Generation
	}
	if now, ok := a.get(v.Name); ok && now.UID == v.UID && equality.Semantic.DeepEqual(now.Status, v.Status) {
		return nil
	}
	_, err := a.cfg.Objects.UpdateVolumeStatus(ctx, v)
	return mended(err)
}

// mended hides that an object is gone: there is nobody left to tell.
func mended(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// request is what an object asks of the engine.
func request(v *v1alpha1.PlinthVolume) volume.Request {
	r := volume.Request{
		Spec: ledger.MadeAs(v.Spec),
		Name: v.Name, Pool: v.Spec.Pool, Path: volume.Path(v.Spec.Path), Import: volume.Path(v.Spec.ImportFrom), Labels: map[string]string{},
	}
	r.ID, r.Size, r.Mode, r.FSType = volume.ID(v.Name), v.Spec.Size.Value(), volume.Mode(v.Spec.VolumeMode), v.Spec.FSType
	if v.Spec.Name != "" {
		r.Name = v.Spec.Name
	}
	if from := v.Spec.Source; from != nil {
		r.From = volume.Content{Snapshot: volume.ID(from.Snapshot), Volume: volume.ID(from.Volume)}
	}
	for _, m := range v.Spec.AccessModes {
		r.AccessModes = append(r.AccessModes, volume.AccessMode(m))
	}
	for key, value := range map[string]string{
		"namespace": v.Spec.ClaimNamespace, "claim": v.Spec.ClaimName, "class": v.Spec.StorageClassName,
	} {
		if value != "" {
			r.Labels[key] = value
		}
	}
	return r
}

// reasonOf is the word for an error.
func reasonOf(err error) string {
	for _, m := range []struct {
		is     error
		reason string
	}{
		{volume.ErrNoCapacity, v1alpha1.ReasonNoCapacity},
		{volume.ErrPoolUnavailable, v1alpha1.ReasonPoolUnavailable},
		{volume.ErrUnsupported, v1alpha1.ReasonUnsupported},
		{volume.ErrOutOfRange, v1alpha1.ReasonInvalid},
		{volume.ErrInvalid, v1alpha1.ReasonInvalid},
		{volume.ErrExists, v1alpha1.ReasonInvalid},
		{volume.ErrPathTaken, v1alpha1.ReasonPathTaken},
		{volume.ErrInUse, v1alpha1.ReasonInUse},
		{errWithdrawn, v1alpha1.ReasonWithdrawn},
	} {
		if errors.Is(err, m.is) {
			return m.reason
		}
	}
	return v1alpha1.ReasonInternal
}

// final says whether trying again is of no use while nothing changes.
func final(reason string) bool {
	switch reason {
	case v1alpha1.ReasonNoCapacity, v1alpha1.ReasonPoolUnavailable, v1alpha1.ReasonUnsupported, v1alpha1.ReasonInvalid, v1alpha1.ReasonPathTaken, v1alpha1.ReasonSourceMissing:
		return true
	}
	return false
}

// strip drops what the agent does not read from an object before it is kept.
func strip(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return o, nil
}
