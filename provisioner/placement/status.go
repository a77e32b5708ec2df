package placement

import (
	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Pools reads the pools that a node reports.
func Pools(n *v1alpha1.PlinthNode) []volume.PoolStatus {
	out := make([]volume.PoolStatus, 0, len(n.Status.Pools))
	for _, p := range n.Status.Pools {
		s := volume.PoolStatus{
			Name: p.Name, Backend: p.Backend, Path: p.Path, UUID: p.UUID, Shared: p.Shared,
			State: volume.PoolState(p.State), Reason: p.Reason, Message: p.Message,
			Total: p.Capacity.Value(), Reserved: p.Reserved.Value(),
			Available: p.Available.Value(), MaxVolume: p.MaxVolume.Value(),
			Volumes: int(p.Volumes), FSTypes: p.FSTypes, Enforced: p.Enforced,
		}
		for _, m := range p.Modes {
			s.Modes = append(s.Modes, volume.Mode(m))
		}
		for _, a := range p.Abilities {
			s.Abilities = append(s.Abilities, volume.Ability(a))
		}
		out = append(out, s)
	}
	return out
}
