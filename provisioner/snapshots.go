package provisioner

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Snapshots makes snapshots for the CSI controller service
// (driver.Snapshots) through the ledger; the agent of the node that keeps the
// volume does the work. A call that its node does not answer in time ends with
// ErrBusy and may be repeated.
type Snapshots struct {
	core
}

// CreateSnapshot cuts a snapshot or finds the one of that name; ErrExists if
// that is of another volume. It returns as soon as the snapshot is cut: its
// bytes may still be copied then.
func (s *Snapshots) CreateSnapshot(ctx context.Context, r volume.SnapshotRequest) (volume.Snapshot, error) {
	name := string(r.ID)
	if name == "" {
		name = string(volume.IDForName(r.Name))
	}
	o, cached, err := s.findOrWrite(ctx, name, r)
	if err != nil {
		return volume.Snapshot{}, err
	}
	if o.Spec.Volume != string(r.Volume) {
		return volume.Snapshot{}, fmt.Errorf("%w: snapshot %s is of volume %s", volume.ErrExists, name, o.Spec.Volume)
	}
	if o, err = s.awaitSnapshot(ctx, o, cached, func(o *v1alpha1.PlinthSnapshot) bool {
		return o == nil || o.Status.CreatedAt != nil || snapshotRefused(o)
	}); err != nil {
		return volume.Snapshot{}, busy(err)
	}
	switch {
	case o == nil || o.DeletionTimestamp != nil:
		return volume.Snapshot{}, fmt.Errorf("%w: snapshot %s is being deleted", volume.ErrBusy, name)
	case o.Status.CreatedAt != nil:
		return describeSnapshot(o), nil
	case !snapshotRefused(o):
		return volume.Snapshot{}, fmt.Errorf("%w: waiting for node %s to cut snapshot %s%s", volume.ErrBusy, o.Spec.NodeName, name, reported(o))
	}
	// It is taken back, so that the next call asks anew.
	fault := fmt.Errorf("%w: node %s could not cut snapshot %s of volume %s%s", sentinel(o.Status.Reason), o.Spec.NodeName, name, r.Volume, reported(o))
	return volume.Snapshot{}, errors.Join(fault, s.view.DeleteSnapshot(ctx, o))
}

func (s *Snapshots) findOrWrite(ctx context.Context, name string, r volume.SnapshotRequest) (*v1alpha1.PlinthSnapshot, bool, error) {
	if o, ok := s.view.Snapshot(name); ok {
		return o, true, nil
	}
	v, _, err := s.read(ctx, r.Volume)
	if err == nil && (v.Status.Size == nil || v.DeletionTimestamp != nil) {
		err = fmt.Errorf("volume %s: %w", r.Volume, volume.ErrNotFound)
	}
	if err != nil {
		return nil, false, err
	}
	o := &v1alpha1.PlinthSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.PlinthSnapshotSpec{
			NodeName: v.Spec.NodeName, Pool: v.Spec.Pool, Shared: v.Spec.Shared, Volume: v.Name,
			VolumeMode: v.Spec.VolumeMode, FSType: v.Spec.FSType,
		},
	}
	if r.Name != name {
		o.Spec.Name = r.Name
	}
	made, err := s.view.CreateSnapshot(ctx, o)
	if apierrors.IsAlreadyExists(err) {
		made, err = s.view.GetSnapshot(ctx, name)
	}
	return made, false, err
}

// DeleteSnapshot returns once the bytes are free; a snapshot that is not there
// is no error.
func (s *Snapshots) DeleteSnapshot(ctx context.Context, id volume.ID) error {
	o, cached, err := s.readSnapshot(ctx, id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if g := o.Spec.Group; g != nil {
		return fmt.Errorf("%w: snapshot %s was taken with others and goes with its group %s alone", volume.ErrInvalid, id, g.ID)
	}
	if err := s.view.DeleteSnapshot(ctx, o); err != nil || s.lostSnapshot(o) {
		return err
	}
	if o, err = s.awaitSnapshot(ctx, o, cached, func(o *v1alpha1.PlinthSnapshot) bool {
		return o == nil || o.Status.Reason == v1alpha1.ReasonInUse
	}); err != nil || o == nil {
		return busy(err)
	}
	if o.Status.Reason == v1alpha1.ReasonInUse {
		return fmt.Errorf("%w: snapshot %s on node %s%s", volume.ErrInUse, id, o.Spec.NodeName, reported(o))
	}
	return fmt.Errorf("%w: node %s is still freeing snapshot %s%s", volume.ErrBusy, o.Spec.NodeName, id, reported(o))
}

// GetSnapshot returns ErrNotFound for a snapshot that was never cut.
func (s *Snapshots) GetSnapshot(ctx context.Context, id volume.ID) (volume.Snapshot, error) {
	o, _, err := s.readSnapshot(ctx, id)
	if err == nil && o.Status.CreatedAt == nil {
		err = fmt.Errorf("snapshot %s: %w", id, volume.ErrNotFound)
	}
	if err != nil {
		return volume.Snapshot{}, err
	}
	return describeSnapshot(o), nil
}

// ListSnapshots gives all snapshots that were cut.
func (s *Snapshots) ListSnapshots(context.Context) ([]volume.Snapshot, error) {
	var out []volume.Snapshot
	for _, o := range s.view.Snapshots() {
		if o.Status.CreatedAt != nil {
			out = append(out, describeSnapshot(o))
		}
	}
	return out, nil
}

// readSnapshot finds a snapshot in the view, or past it.
func (c *core) readSnapshot(ctx context.Context, id volume.ID) (*v1alpha1.PlinthSnapshot, bool, error) {
	if o, ok := c.view.Snapshot(string(id)); ok {
		return o, true, nil
	}
	o, err := c.view.GetSnapshot(ctx, string(id))
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("snapshot %s: %w", id, volume.ErrNotFound)
	}
	return o, false, err
}

// awaitSnapshot is await for a snapshot.
func (s *Snapshots) awaitSnapshot(ctx context.Context, o *v1alpha1.PlinthSnapshot, cached bool, done func(*v1alpha1.PlinthSnapshot) bool) (*v1alpha1.PlinthSnapshot, error) {
	short, cancel := context.WithTimeout(ctx, s.callPatience)
	defer cancel()
	seen := cached
	now, err := s.view.UntilSnapshot(short, o.Name, func(now *v1alpha1.PlinthSnapshot) bool {
		if now == nil && !seen {
			return false
		}
		seen = true
		return done(now)
	})
	switch {
	case err == nil:
		return now, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("waiting for node %s: %w", o.Spec.NodeName, ctx.Err())
	case now == nil && !seen:
		return o, nil
	}
	return now, nil
}

// snapshotRefused: its node cannot cut it, and never did.
func snapshotRefused(o *v1alpha1.PlinthSnapshot) bool {
	if o.Status.CreatedAt != nil {
		return false
	}
	switch o.Status.Reason {
	case "", v1alpha1.ReasonInternal:
		return false // the node tries again
	}
	return true
}

// reported is the node's own message, to be appended to a sentence.
func reported(o *v1alpha1.PlinthSnapshot) string {
	if o.Status.Message == "" {
		return ""
	}
	return ": " + o.Status.Message
}

// describeSnapshot puts a snapshot in the words of driver/volume.
func describeSnapshot(o *v1alpha1.PlinthSnapshot) volume.Snapshot {
	out := volume.Snapshot{
		ID: volume.ID(o.Name), Name: o.Name, Volume: volume.ID(o.Spec.Volume),
		Pool: o.Spec.Pool, Mode: volume.Mode(o.Spec.VolumeMode), FSType: o.Spec.FSType, Ready: o.Status.Ready,
	}
	if !o.Spec.Shared {
		out.Node = o.Spec.NodeName
	}
	if o.Spec.Name != "" {
		out.Name = o.Spec.Name
	}
	if o.Spec.Group != nil {
		out.Group = volume.ID(o.Spec.Group.ID)
	}
	if o.Status.Size != nil {
		out.Size = o.Status.Size.Value()
	}
	if o.Status.CreatedAt != nil {
		out.CreatedAt = o.Status.CreatedAt.Time
	}
	return out
}
