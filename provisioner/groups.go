package provisioner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// CreateGroup has the node of several volumes take snapshots of them at one
// instant (driver.Groups), or finds the group of that name; ErrExists if that
// is of other volumes. The ledger has a PlinthSnapshot of each, and each tells
// the whole group, so that the node takes it once all are there. ErrInvalid if
// the volumes are on several nodes, ErrUnsupported where their pools cannot do
// it. What a node refuses is taken back.
func (s *Snapshots) CreateGroup(ctx context.Context, r volume.GroupRequest) (volume.Group, error) {
	g := v1alpha1.SnapshotGroup{ID: string(cmp.Or(r.ID, volume.IDForName(r.Name))), Name: r.Name}
	for _, of := range slices.Sorted(slices.Values(r.Volumes)) {
		g.Volumes = append(g.Volumes, string(of))
	}
	all, err := s.findOrWriteGroup(ctx, g)
	if err != nil {
		return volume.Group{}, fmt.Errorf("group %s: %w", g.ID, err)
	}
	for i, o := range all {
		o, err = s.awaitSnapshot(ctx, o, false, func(o *v1alpha1.PlinthSnapshot) bool {
			return o == nil || o.Status.CreatedAt != nil || snapshotRefused(o) || o.DeletionTimestamp != nil
		})
		switch {
		case err != nil:
			return volume.Group{}, busy(err)
		case o == nil || o.DeletionTimestamp != nil:
			return volume.Group{}, fmt.Errorf("%w: group %s is being deleted", volume.ErrBusy, g.ID)
		case snapshotRefused(o):
			fault := fmt.Errorf("%w: node %s could not take group %s%s", sentinel(o.Status.Reason), o.Spec.NodeName, g.ID, reported(o))
			return volume.Group{}, errors.Join(fault, s.deleteAll(ctx, all))
		case o.Status.CreatedAt == nil:
			return volume.Group{}, fmt.Errorf("%w: waiting for node %s to take group %s%s", volume.ErrBusy, o.Spec.NodeName, g.ID, reported(o))
		}
		all[i] = o
	}
	return describeGroup(g, all), nil
}

// findOrWriteGroup returns the snapshots of a group in the order of its
// volumes, and writes those that are missing.
func (s *Snapshots) findOrWriteGroup(ctx context.Context, g v1alpha1.SnapshotGroup) ([]*v1alpha1.PlinthSnapshot, error) {
	there, err := s.ofGroup(g.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range there {
		switch {
		case o.Spec.Group.Name != g.Name || !slices.Equal(o.Spec.Group.Volumes, g.Volumes):
			return nil, fmt.Errorf("%w: it has the name %q and is of the volumes %q, asked is %q of %q", volume.ErrExists, o.Spec.Group.Name, o.Spec.Group.Volumes, g.Name, g.Volumes)
		case o.DeletionTimestamp != nil:
			return nil, fmt.Errorf("%w: it is being deleted", volume.ErrBusy)
		}
	}
	wanted, err := s.intents(ctx, g, len(there) == len(g.Volumes))
	if err != nil {
		return nil, err
	}
	out := make([]*v1alpha1.PlinthSnapshot, 0, len(wanted))
	for _, o := range wanted {
		if i := slices.IndexFunc(there, func(t *v1alpha1.PlinthSnapshot) bool { return t.Name == o.Name }); i >= 0 {
			out = append(out, there[i])
			continue
		}
		made, err := s.view.CreateSnapshot(ctx, o)
		if apierrors.IsAlreadyExists(err) {
			made, err = s.view.GetSnapshot(ctx, o.Name)
			if err == nil && (made.Spec.Group == nil || made.Spec.Group.ID != g.ID) {
				err = fmt.Errorf("%w: snapshot %s is not of this group", volume.ErrExists, o.Name)
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

// intents are the PlinthSnapshots of a group. Those of one that is there need
// no volumes any more.
func (s *Snapshots) intents(ctx context.Context, g v1alpha1.SnapshotGroup, there bool) ([]*v1alpha1.PlinthSnapshot, error) {
	var out []*v1alpha1.PlinthSnapshot
	for _, of := range g.Volumes {
		id, name := volume.MemberID(g.Name, volume.ID(of))
		o := &v1alpha1.PlinthSnapshot{
			ObjectMeta: metav1.ObjectMeta{Name: string(id), Finalizers: []string{v1alpha1.Finalizer}},
			Spec:       v1alpha1.PlinthSnapshotSpec{Volume: of, Name: name, Group: g.DeepCopy()},
		}
		if !there {
			v, _, err := s.read(ctx, volume.ID(of))
			if err == nil && (v.Status.Size == nil || v.DeletionTimestamp != nil) {
				err = fmt.Errorf("volume %s: %w", of, volume.ErrNotFound)
			}
			if err != nil {
				return nil, err
			}
			o.Spec.NodeName, o.Spec.Pool, o.Spec.Shared = v.Spec.NodeName, v.Spec.Pool, v.Spec.Shared
			o.Spec.VolumeMode, o.Spec.FSType = v.Spec.VolumeMode, v.Spec.FSType
		}
		out = append(out, o)
	}
	return out, oneNode(out)
}

// oneNode refuses a group whose volumes are on several nodes: nothing could
// hold them still at one instant.
func oneNode(all []*v1alpha1.PlinthSnapshot) error {
	for _, o := range all {
		if first := all[0].Spec; o.Spec.NodeName != first.NodeName {
			return fmt.Errorf("%w: volume %s is on node %s and volume %s on node %s; snapshots are taken together of volumes of one node: take a group on each, by a label of its own, or let the pods run on one node",
				volume.ErrInvalid, first.Volume, first.NodeName, o.Spec.Volume, o.Spec.NodeName)
		}
	}
	return nil
}

// ofGroup finds the snapshots of a group. It is not answered before the view
// is whole: a group that is not seen would be forgotten, with its bytes.
func (s *Snapshots) ofGroup(id string) ([]*v1alpha1.PlinthSnapshot, error) {
	if !s.view.Synced() {
		return nil, fmt.Errorf("%w: the ledger is still being read", volume.ErrBusy)
	}
	var out []*v1alpha1.PlinthSnapshot
	for _, o := range s.view.Snapshots() {
		if o.Spec.Group != nil && o.Spec.Group.ID == id {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.PlinthSnapshot) int { return cmp.Compare(a.Spec.Volume, b.Spec.Volume) })
	return out, nil
}

// DeleteGroup returns once the bytes of all snapshots of a group are free; one
// that is not there is no error.
func (s *Snapshots) DeleteGroup(ctx context.Context, id volume.ID) error {
	all, err := s.ofGroup(string(id))
	if err != nil {
		return err
	}
	if err := s.deleteAll(ctx, all); err != nil {
		return err
	}
	for _, o := range all {
		o, err := s.awaitSnapshot(ctx, o, true, func(o *v1alpha1.PlinthSnapshot) bool { return o == nil })
		if err != nil {
			return busy(err)
		}
		if o != nil {
			return fmt.Errorf("%w: node %s is still freeing group %s%s", volume.ErrBusy, o.Spec.NodeName, id, reported(o))
		}
	}
	return nil
}

func (s *Snapshots) deleteAll(ctx context.Context, all []*v1alpha1.PlinthSnapshot) error {
	var errs []error
	for _, o := range all {
		errs = append(errs, s.view.DeleteSnapshot(ctx, o))
	}
	return errors.Join(errs...)
}

// GetGroup returns ErrNotFound for a group that was never taken.
func (s *Snapshots) GetGroup(_ context.Context, id volume.ID) (volume.Group, error) {
	all, err := s.ofGroup(string(id))
	if err != nil {
		return volume.Group{}, err
	}
	if !slices.ContainsFunc(all, func(o *v1alpha1.PlinthSnapshot) bool { return o.Status.CreatedAt != nil }) {
		return volume.Group{}, fmt.Errorf("group %s: %w", id, volume.ErrNotFound)
	}
	return describeGroup(*all[0].Spec.Group, all), nil
}

// describeGroup puts a group in the words of driver/volume. One of which a
// snapshot is missing is not ready.
func describeGroup(g v1alpha1.SnapshotGroup, all []*v1alpha1.PlinthSnapshot) volume.Group {
	out := volume.Group{ID: volume.ID(g.ID), Name: g.Name, Ready: len(all) == len(g.Volumes)}
	for _, o := range all {
		one := describeSnapshot(o)
		out.Snapshots = append(out.Snapshots, one)
		out.Ready = out.Ready && one.Ready
		out.CreatedAt = one.CreatedAt // of one instant
	}
	return out
}
