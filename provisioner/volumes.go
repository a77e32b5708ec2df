package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// Volumes makes volumes for the CSI controller service (driver.Volumes): what
// standalone does on its own pools, this does through the ledger, and the
// agents do the work. A call that its node does not answer in time ends with
// ErrBusy and may be repeated.
type Volumes struct {
	core
}

// Create makes a volume or finds the one of that name; ErrExists if the name
// is taken by a volume that the request does not describe.
func (s *Volumes) Create(ctx context.Context, r volume.Request) (volume.Volume, error) {
	name := string(r.ID)
	if name == "" {
		name = string(volume.IDForName(r.Name))
	}
	place := s.request(r)
	for range attempts {
		v, cached, err := s.findOrWrite(ctx, name, r, place)
		if err != nil {
			return volume.Volume{}, err
		}
		if v, err = s.await(ctx, v, cached, s.callPatience, settled); err != nil {
			return volume.Volume{}, busy(err)
		}
		switch {
		case gone(v):
			continue
		case !settled(v):
			return volume.Volume{}, fmt.Errorf("%w: %s", volume.ErrBusy, s.waitingFor(v))
		case ready(v):
			return describe(v), nil
		}
		fault := fmt.Errorf("%w: node %s could not make volume %s in pool %s%s", sentinel(v.Status.Reason), v.Spec.NodeName, name, v.Spec.Pool, because(v))
		if err := s.view.DeleteVolume(ctx, v); err != nil {
			return volume.Volume{}, errors.Join(fault, err)
		}
		if _, err := s.await(ctx, v, true, s.callPatience, gone); err != nil || !elsewhere(v) {
			return volume.Volume{}, errors.Join(fault, err)
		}
		place.Avoid[placement.PoolKey{Node: v.Spec.NodeName, Pool: v.Spec.Pool}] = true
	}
	return volume.Volume{}, fmt.Errorf("%w: volume %s: %d places were tried and none took it", volume.ErrNoCapacity, name, attempts)
}

func (s *Volumes) findOrWrite(ctx context.Context, name string, r volume.Request, place placement.Request) (*v1alpha1.PlinthVolume, bool, error) {
	v, cached := s.view.Volume(name)
	if !cached {
		err := s.keepToSource(ctx, &place, r.From)
		if err != nil {
			return nil, false, err
		}
		v, _, err = s.write(ctx, place, func(at placement.Choice) *v1alpha1.PlinthVolume {
			return intentFor(name, r, place, at)
		})
		if err != nil {
			return nil, false, fmt.Errorf("volume %s: %w", name, noPlace(err))
		}
	}
	return v, cached, same(v, r)
}

// Delete returns once the bytes are free, or once that is intended if the node
// is gone (see lost); a volume that is not there is no error.
func (s *Volumes) Delete(ctx context.Context, id volume.ID) error {
	v, cached, err := s.read(ctx, id)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.view.DeleteVolume(ctx, v); err != nil || s.lost(v) {
		return err
	}
	v, err = s.await(ctx, v, cached, s.callPatience, func(v *v1alpha1.PlinthVolume) bool {
		return v == nil || v.Status.Reason == v1alpha1.ReasonInUse
	})
	if err != nil {
		return busy(err)
	}
	switch {
	case gone(v):
		return nil
	case v.Status.Reason == v1alpha1.ReasonInUse:
		return fmt.Errorf("%w: volume %s on node %s%s", volume.ErrInUse, id, v.Spec.NodeName, because(v))
	}
	return fmt.Errorf("%w: node %s is still freeing volume %s%s", volume.ErrBusy, v.Spec.NodeName, id, because(v))
}

// Get returns ErrNotFound for a volume that was never made.
func (s *Volumes) Get(ctx context.Context, id volume.ID) (volume.Volume, error) {
	v, _, err := s.read(ctx, id)
	if err == nil && v.Status.Size == nil {
		err = fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	if err != nil {
		return volume.Volume{}, err
	}
	return describe(v), nil
}

// List gives all volumes that were made.
func (s *Volumes) List(context.Context) ([]volume.Volume, error) {
	var out []volume.Volume
	for _, v := range s.view.Volumes() {
		if v.Status.Size != nil {
			out = append(out, describe(v))
		}
	}
	return out, nil
}

// Expand grows a volume to size bytes. Where its node has no room for that
// the intent is taken back, so that a smaller one can follow.
func (s *Volumes) Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error) {
	v, cached, err := s.read(ctx, id)
	if err != nil {
		return volume.Volume{}, err
	}
	if v.Status.Size == nil {
		return volume.Volume{}, fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	if v.Spec.Size.Value() < size {
		if v, err = s.view.ResizeVolume(ctx, v, *resource.NewQuantity(size, resource.BinarySI)); err != nil {
			return volume.Volume{}, err
		}
		cached = false
	}
	asked := v.Generation
	v, err = s.await(ctx, v, cached, s.callPatience, func(v *v1alpha1.PlinthVolume) bool {
		return v == nil || v.Status.Size.Value() >= size || (v.Status.ObservedGeneration >= asked && v.Status.Reason != "")
	})
	switch {
	case err != nil:
		return volume.Volume{}, busy(err)
	case gone(v):
		return volume.Volume{}, fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	case v.Status.Size.Value() >= size:
		return describe(v), nil
	case v.Status.Reason == "" || v.Status.ObservedGeneration < asked:
		return volume.Volume{}, fmt.Errorf("%w: node %s has not grown volume %s yet", volume.ErrBusy, v.Spec.NodeName, id)
	}
	fault := fmt.Errorf("%w: growing volume %s to %s%s", sentinel(v.Status.Reason), id, bytesize.Format(size), because(v))
	return volume.Volume{}, errors.Join(fault, s.takeBack(ctx, v))
}

// takeBack undoes the intent to grow v, and returns once the view knows: the
// next call must not take the old intent for its own.
func (s *Volumes) takeBack(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	back, err := s.view.ResizeVolume(ctx, v, *v.Status.Size)
	if err != nil {
		return err
	}
	_, err = s.await(ctx, back, true, s.callPatience, func(now *v1alpha1.PlinthVolume) bool {
		return now == nil || now.Generation >= back.Generation
	})
	return err
}

// Space says what could be provisioned for such a request now.
func (s *Volumes) Space(_ context.Context, r volume.Request) (volume.Space, error) {
	place := s.request(r)
	var out volume.Space
	counted := map[string]bool{} // shared pools
	for _, n := range s.picture.all() {
		if len(place.Nodes) > 0 && !slices.Contains(place.Nodes, n.Name) {
			continue
		}
		for _, p := range n.Pools {
			if !place.Serves(n.Name, p) || (p.Shared && counted[p.UUID]) {
				continue
			}
			counted[p.UUID] = true
			out.Available += p.Available
			out.Max = max(out.Max, placement.Room(p, 0))
		}
	}
	return out, nil
}

func (s *Volumes) request(r volume.Request) placement.Request {
	place := placement.Request{
		Size: r.Size, Mode: r.Mode, FSType: r.FSType, AccessModes: r.AccessModes,
		Nodes: r.Nodes, Key: TopologyKey(s.driver), Avoid: map[placement.PoolKey]bool{},
		Mkfs: len(r.MkfsOptions) > 0,
	}
	asked := Class{Make: r.Spec}
	place.Needs = asked.needs()
	if r.Attributes != (volume.Attributes{}) {
		place.Needs = append(place.Needs, volume.AbleAttributes)
	}
	if place.Mode == volume.Block {
		place.FSType = ""
	}
	for name := range strings.SplitSeq(r.Pool, ",") {
		if name = strings.TrimSpace(name); name != "" {
			place.Pools = append(place.Pools, name)
		}
	}
	return place
}
