package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
)

// KnownPools are the UUIDs that this node has reported for its pools; none if
// it never reported. The engine refuses other disks in their place.
func KnownPools(ctx context.Context, objects Objects, node string) (map[string]string, error) {
	n, err := objects.GetNode(ctx, node)
	if apierrors.IsNotFound(err) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for _, p := range n.Status.Pools {
		if p.UUID != "" {
			known[p.Name] = p.UUID
		}
	}
	return known, nil
}

// publishing writes the PlinthNode whenever it is due, until ctx ends.
func (a *Agent) publishing(ctx context.Context) {
	retry := firstRetry
	slow := time.NewTicker(refresh)
	defer slow.Stop()
	for {
		timely := true
		select {
		case <-a.publish:
		case <-slow.C:
			timely = false
		case <-ctx.Done():
			return
		}
		err := a.publishNow(ctx, timely)
		wait := gather // changes that come meanwhile go out together
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("the node cannot be published", logNode, a.cfg.Node, logError, err)
			a.changed()
			wait, retry = retry, min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// publishNow writes the status of the node if it says anything new. An
// untimely one, on the slow timer, is written only for a change that matters.
func (a *Agent) publishNow(ctx context.Context, timely bool) error {
	a.settle(ctx)
	pools := a.cfg.Engine.Pools(ctx)
	now, err := a.current(ctx)
	if err != nil {
		return err
	}
	next := now.DeepCopy()
	a.describe(&next.Status, pools)
	if equality.Semantic.DeepEqual(now.Status, next.Status) || (!timely && !matters(now.Status, next.Status)) {
		return nil
	}
	next, err = a.cfg.Objects.UpdateNodeStatus(ctx, next)
	if err == nil {
		a.mu.Lock()
		a.wrote = next.ResourceVersion
		a.mu.Unlock()
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		a.changed() // the watch is about to bring the newest
		return nil
	}
	return err
}

// current is the node's object as last seen, made if there is none.
func (a *Agent) current(ctx context.Context) (*v1alpha1.PlinthNode, error) {
	if o, ok, err := a.node.GetStore().GetByKey(a.cfg.Node); err == nil && ok {
		if n, ok := o.(*v1alpha1.PlinthNode); ok {
			return n, nil
		}
	}
	n, err := a.cfg.Objects.CreateNode(ctx, &v1alpha1.PlinthNode{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Node}})
	if apierrors.IsAlreadyExists(err) {
		return a.cfg.Objects.GetNode(ctx, a.cfg.Node)
	}
	return n, err
}

// describe fills in a node's status.
func (a *Agent) describe(s *v1alpha1.PlinthNodeStatus, pools []volume.PoolStatus) {
	s.Version, s.Volumes, s.Pools = a.cfg.Version, 0, nil
	var serving int
	var summary, faults []string
	for _, p := range pools {
		s.Pools = append(s.Pools, poolStatus(p))
		s.Volumes += int32(p.Volumes) //nolint:gosec // a count of volumes of one node
		if p.State == volume.PoolReady {
			serving++
			summary = append(summary, fmt.Sprintf("%s %s %s of %s", p.Name, p.Backend, bytesize.Format(p.Available), bytesize.Format(p.Total)))
			continue
		}
		summary = append(summary, p.Name+" unavailable")
		faults = append(faults, fmt.Sprintf("pool %s: %s", p.Name, p.Message))
	}
	s.PoolsReady = fmt.Sprintf("%d/%d", serving, len(pools))
	s.Summary = strings.Join(summary, ", ")
	condition(s, v1alpha1.ConditionReady, len(faults) == 0, "PoolsServe", "PoolsUnavailable", "every pool serves", strings.Join(faults, "; "))
	a.mu.Lock()
	strangers := slices.Clone(a.strangers)
	a.mu.Unlock()
	condition(s, v1alpha1.ConditionRecordsMatch, len(strangers) == 0, "RecordsMatch", "UnknownVolumes",
		"every volume on this node is explained by a PlinthVolume", strangersMessage(strangers))
}

// maxListed is how many volumes a message names.
const maxListed = 5

func strangersMessage(ids []volume.ID) string {
	var names []string
	for _, id := range ids[:min(len(ids), maxListed)] {
		names = append(names, string(id))
	}
	return fmt.Sprintf("%d volumes on this node belong to no PlinthVolume of this cluster and are left alone, such as %s", len(ids), strings.Join(names, ", "))
}

func condition(s *v1alpha1.PlinthNodeStatus, kind string, holds bool, reason, otherwise, message, fault string) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	if !holds {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, otherwise, fault
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

func poolStatus(p volume.PoolStatus) v1alpha1.PoolStatus {
	out := v1alpha1.PoolStatus{
		Name: p.Name, Backend: p.Backend, Path: p.Path, UUID: p.UUID, Shared: p.Shared,
		State: string(p.State), Reason: p.Reason, Message: p.Message,
		Capacity: quantity(p.Total), Reserved: quantity(p.Reserved),
		Available: quantity(p.Available), MaxVolume: quantity(p.MaxVolume),
		Volumes: int32(p.Volumes), FSTypes: p.FSTypes, Enforced: p.Enforced, //nolint:gosec // a count
	}
	for _, m := range p.Modes {
		out.Modes = append(out.Modes, string(m))
	}
	for _, able := range p.Abilities {
		out.Abilities = append(out.Abilities, string(able))
	}
	return out
}

func quantity(bytes int64) resource.Quantity { return *resource.NewQuantity(bytes, resource.BinarySI) }

// matters says whether a change of the space that others use is worth a
// write: a hundredth of a pool, or anything but space.
func matters(was, is v1alpha1.PlinthNodeStatus) bool {
	if len(was.Pools) != len(is.Pools) || was.PoolsReady != is.PoolsReady || was.Volumes != is.Volumes {
		return true
	}
	for i := range was.Pools {
		before, after := was.Pools[i].Available.Value(), is.Pools[i].Available.Value()
		if max(before-after, after-before) > is.Pools[i].Capacity.Value()/100 {
			return true
		}
	}
	return false
}
