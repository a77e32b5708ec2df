package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// A group of snapshots is as many PlinthSnapshots, each of which tells the
// whole group. It is taken when the last of them has come, and deleted when the
// last of them is to go; until then those that came, or are to go, wait. The
// engine's one record of the group decides whether it was taken.

// members are the snapshots of the group of s that are there, in the order of
// the group's volumes; whole says that none is missing or to go.
func (a *Agent) members(g *v1alpha1.SnapshotGroup) (there []*v1alpha1.PlinthSnapshot, whole bool) {
	whole = true
	for _, of := range g.Volumes {
		id, _ := volume.MemberID(g.Name, volume.ID(of))
		o, ok, err := a.snapshots.GetStore().GetByKey(string(id))
		if err != nil || !ok {
			whole = false
			continue
		}
		s, ok := o.(*v1alpha1.PlinthSnapshot)
		if !ok || s.Spec.Group == nil || s.Spec.Group.ID != g.ID {
			whole = false
			continue
		}
		whole = whole && s.DeletionTimestamp == nil
		there = append(there, s.DeepCopy())
	}
	return there, whole
}

// reconcileGroup takes the group of s, which has not been taken as far as s
// tells. The first of those of which that is so stands for all: the agent may
// have been cut before it had told of each.
func (a *Agent) reconcileGroup(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	g := s.Spec.Group
	all, whole := a.members(g)
	if !whole {
		return nil // the last to come brings it here again
	}
	for _, first := range all {
		if first.Status.CreatedAt == nil && first.Name != s.Name {
			a.queue.Add(item{aSnapshot, first.Name})
			return nil
		}
		if first.Status.CreatedAt == nil {
			break
		}
	}
	if final(s.Status.Reason) && s.Status.Reason != v1alpha1.ReasonPoolUnavailable {
		return nil // refused: it is for the requester to take back
	}
	r := volume.GroupRequest{ID: volume.ID(g.ID), Name: g.Name}
	for _, of := range g.Volumes {
		r.Volumes = append(r.Volumes, volume.ID(of))
	}
	defer a.changed()
	taken, err := a.cfg.Engine.CreateGroup(ctx, r)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	var errs []error
	for _, one := range all {
		if err != nil {
			if one.Status.CreatedAt == nil {
				errs = append(errs, a.snapshotFailed(ctx, one, err))
			}
			continue
		}
		i := slices.IndexFunc(taken.Snapshots, func(found volume.Snapshot) bool { return string(found.ID) == one.Name })
		if i < 0 {
			errs = append(errs, a.snapshotFailed(ctx, one, fmt.Errorf("snapshot %s of group %s: %w", one.Name, g.ID, volume.ErrNotFound)))
			continue
		}
		errs = append(errs, a.snapshotMade(ctx, one, taken.Snapshots[i]))
	}
	return errors.Join(errs...)
}

// groupGoes says whether all of the group of s that is there is to go.
func (a *Agent) groupGoes(s *v1alpha1.PlinthSnapshot) bool {
	all, _ := a.members(s.Spec.Group)
	goes := !slices.ContainsFunc(all, func(one *v1alpha1.PlinthSnapshot) bool { return one.DeletionTimestamp == nil })
	if goes {
		for _, one := range all {
			if one.Name != s.Name {
				a.queue.Add(item{aSnapshot, one.Name}) // it may have waited for s
			}
		}
	}
	return goes
}

// keptByGroup tells, of a snapshot that was deleted alone, what it waits for.
// Those of a group that is deleted come one after the other: that is no news.
func (a *Agent) keptByGroup(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	if wait := progress - time.Since(s.DeletionTimestamp.Time); wait > 0 {
		a.queue.AddAfter(item{aSnapshot, s.Name}, wait)
		return nil
	}
	s.Status.Reason = v1alpha1.ReasonInUse
	s.Status.Message = fmt.Sprintf("it was taken with others and goes with them; delete all snapshots of group %s", s.Spec.Group.ID)
	return a.writeSnapshot(ctx, s)
}
