package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
)

// progress is how often the progress of a copy is written down.
const progress = 2 * time.Second

// reconcileSnapshot brings one snapshot to what its object wants. An error has
// it tried again; what only another change can mend is written down and is no
// error.
func (a *Agent) reconcileSnapshot(ctx context.Context, name string) error {
	o, ok, err := a.snapshots.GetStore().GetByKey(name)
	if err != nil || !ok {
		return err
	}
	s := o.(*v1alpha1.PlinthSnapshot).DeepCopy()
	if s.DeletionTimestamp != nil {
		return a.freeSnapshot(ctx, s)
	}
	if s.Spec.Group != nil && s.Status.CreatedAt == nil {
		return a.reconcileGroup(ctx, s)
	}
	if s.Status.CreatedAt == nil && final(s.Status.Reason) && s.Status.Reason != v1alpha1.ReasonPoolUnavailable {
		return nil // refused: it is for the requester to take back
	}
	found, err := a.cut(ctx, s)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return a.snapshotFailed(ctx, s, err)
	}
	return a.snapshotMade(ctx, s, found)
}

// snapshotMade writes down what there is of a snapshot.
func (a *Agent) snapshotMade(ctx context.Context, s *v1alpha1.PlinthSnapshot, found volume.Snapshot) error {
	s.Status = v1alpha1.PlinthSnapshotStatus{
		Ready: found.Ready, Size: resource.NewQuantity(found.Size, resource.BinarySI),
		CreatedAt: &metav1.Time{Time: found.CreatedAt},
	}
	if !found.Ready {
		s.Status.Reason = v1alpha1.ReasonCopying
		s.Status.Message = fmt.Sprintf("%s of %s are copied", bytesize.Format(found.Copied), bytesize.Format(found.Size))
		a.queue.AddAfter(item{aSnapshot, s.Name}, progress)
	}
	return a.writeSnapshot(ctx, s)
}

// cut makes the snapshot, or looks for one that was made: it is never cut a
// second time, which would show another moment.
func (a *Agent) cut(ctx context.Context, s *v1alpha1.PlinthSnapshot) (volume.Snapshot, error) {
	if s.Status.CreatedAt != nil {
		return a.cfg.Engine.GetSnapshot(ctx, volume.ID(s.Name))
	}
	defer a.changed()
	r := volume.SnapshotRequest{ID: volume.ID(s.Name), Name: s.Name, Volume: volume.ID(s.Spec.Volume)}
	if s.Spec.Name != "" {
		r.Name = s.Spec.Name
	}
	return a.cfg.Engine.CreateSnapshot(ctx, r)
}

// snapshotFailed writes down why there is no snapshot. What another try could
// mend is tried again.
func (a *Agent) snapshotFailed(ctx context.Context, s *v1alpha1.PlinthSnapshot, cause error) error {
	s.Status.Ready = false
	s.Status.Reason, s.Status.Message = reasonOf(cause), cause.Error()
	switch {
	case !errors.Is(cause, volume.ErrNotFound):
	case s.Status.CreatedAt == nil:
		s.Status.Reason = v1alpha1.ReasonSourceMissing
	default:
		s.Status.Reason = v1alpha1.ReasonDataMissing
		s.Status.Message = fmt.Sprintf("the snapshot was made and its data is not in any pool of node %s now", a.cfg.Node)
	}
	if final(s.Status.Reason) || s.Status.Reason == v1alpha1.ReasonDataMissing {
		a.cfg.Log.Info("snapshot refused", logSnapshot, s.Name, logReason, s.Status.Reason, logError, cause)
		return a.writeSnapshot(ctx, s)
	}
	return errors.Join(cause, a.writeSnapshot(ctx, s))
}

// freeSnapshot deletes a snapshot and lets its object go.
func (a *Agent) freeSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	if !slices.Contains(s.Finalizers, v1alpha1.Finalizer) {
		return nil
	}
	if s.Spec.Group != nil && !a.groupGoes(s) {
		return a.keptByGroup(ctx, s)
	}
	err := a.mayFree(ctx)
	if err == nil {
		err = a.delSnapshot(ctx, s)
	}
	if errors.Is(err, volume.ErrExists) {
		a.cfg.Log.Warn("a snapshot of that name is another's; it is left alone", logSnapshot, s.Name, logError, err)
		err = nil
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.Status.Reason, s.Status.Message = reasonOf(err), err.Error()
		return errors.Join(err, a.writeSnapshot(ctx, s))
	}
	a.changed()
	return mended(a.cfg.Objects.ReleaseSnapshot(ctx, s))
}

// delSnapshot deletes a snapshot, with all of its group if it has one.
func (a *Agent) delSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	if g := s.Spec.Group; g != nil {
		return a.cfg.Engine.DeleteGroup(ctx, volume.ID(g.ID))
	}
	return a.cfg.Engine.DeleteSnapshot(ctx, volume.ID(s.Name))
}

// writeSnapshot puts down the status of s if it says anything new.
func (a *Agent) writeSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	o, ok, err := a.snapshots.GetStore().GetByKey(s.Name)
	if err != nil {
		return err
	}
	if now, is := o.(*v1alpha1.PlinthSnapshot); ok && is && now.UID == s.UID && equality.Semantic.DeepEqual(now.Status, s.Status) {
		return nil
	}
	_, err = a.cfg.Objects.UpdateSnapshotStatus(ctx, s)
	return mended(err)
}
