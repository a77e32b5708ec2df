package plugin

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// VolumeFilter says which volumes are listed; an empty word does not count.
type VolumeFilter struct {
	Node, Pool, Phase string
	Namespace         string // of the claim that has it, or had it last
}

// Volumes lists volumes by name.
func (p *Plugin) Volumes(ctx context.Context, f VolumeFilter, o Output) error {
	all, err := list[v1alpha1.PlinthVolume](ctx, p, volumes)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(v v1alpha1.PlinthVolume) bool {
		differs := func(want, has string) bool { return want != "" && want != has }
		return differs(f.Node, v.Spec.NodeName) || differs(f.Pool, v.Spec.Pool) || differs(f.Phase, phase(&v)) || differs(f.Namespace, v.Spec.ClaimNamespace)
	})
	if o != Table {
		return p.print(o, listOf(all))
	}
	behind, err := p.persistentVolumes(ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, len(all))
	for i := range all {
		v := &all[i]
		claim := v.Spec.ClaimName
		if v.Spec.ClaimNamespace != "" {
			claim = v.Spec.ClaimNamespace + "/" + v.Spec.ClaimName
		}
		rows[i] = []string{v.Name, phase(v), v.Spec.NodeName, v.Spec.Pool, size(v), string(v.Spec.VolumeType), claim, behind[v.Name], p.age(v.CreationTimestamp), v.Status.Message}
	}
	return p.table("NAME PHASE NODE POOL SIZE TYPE CLAIM PV AGE MESSAGE", rows)
}

// phase is where a volume is in its life, its end included.
func phase(v *v1alpha1.PlinthVolume) string {
	if v.DeletionTimestamp != nil {
		return "Deleting"
	}
	return cmp.Or(string(v.Status.Phase), string(v1alpha1.VolumePending))
}

// size is the limit that holds, or that is to hold.
func size(v *v1alpha1.PlinthVolume) string {
	if v.Status.Size != nil {
		return v.Status.Size.String()
	}
	return v.Spec.Size.String()
}

// persistentVolumes are the names of the PersistentVolumes by the PlinthVolume
// behind them: those of a CSI driver by their handle, others by annotation.
func (p *Plugin) persistentVolumes(ctx context.Context) (map[string]string, error) {
	all, err := list[corev1.PersistentVolume](ctx, p, pvs)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, pv := range all {
		name := pv.Annotations[v1alpha1.AnnotationVolume]
		if name == "" && pv.Spec.CSI != nil {
			name = pv.Spec.CSI.VolumeHandle
		}
		if name != "" {
			out[name] = pv.Name
		}
	}
	return out, nil
}

// Nodes lists the nodes that have reported.
func (p *Plugin) Nodes(ctx context.Context, o Output) error {
	all, err := list[v1alpha1.PlinthNode](ctx, p, nodes)
	if err != nil {
		return err
	}
	if o != Table {
		return p.print(o, listOf(all))
	}
	rows := make([][]string, len(all))
	for i, n := range all {
		message := ""
		for _, c := range n.Status.Conditions {
			if c.Status != "True" && message == "" {
				message = c.Message
			}
		}
		rows[i] = []string{n.Name, n.Status.PoolsReady, strconv.Itoa(int(n.Status.Volumes)), n.Status.Version, p.age(n.CreationTimestamp), message}
	}
	return p.table("NODE POOLS VOLUMES VERSION AGE MESSAGE", rows)
}

// nodePool is a pool with the node that it is on.
type nodePool struct {
	Node                string `json:"node"`
	v1alpha1.PoolStatus `json:",inline"`
}

// Pools lists the pools of all nodes, or of one.
func (p *Plugin) Pools(ctx context.Context, node string, o Output) error {
	all, err := list[v1alpha1.PlinthNode](ctx, p, nodes)
	if err != nil {
		return err
	}
	found := []nodePool{}
	for _, n := range all {
		for _, pool := range n.Status.Pools {
			if node == "" || node == n.Name {
				found = append(found, nodePool{n.Name, pool})
			}
		}
	}
	if o != Table {
		return p.print(o, found)
	}
	rows := make([][]string, len(found))
	for i, f := range found {
		state := f.State
		if f.Reason != "" {
			state += " (" + f.Reason + ")"
		}
		rows[i] = []string{f.Node, f.Name, f.Backend, state, f.Capacity.String(), f.Reserved.String(), f.Available.String(), strconv.Itoa(int(f.Volumes)), f.Message}
	}
	return p.table("NODE POOL BACKEND STATE CAPACITY RESERVED AVAILABLE VOLUMES MESSAGE", rows)
}

// Snapshots lists snapshots.
func (p *Plugin) Snapshots(ctx context.Context, o Output) error {
	all, err := list[v1alpha1.PlinthSnapshot](ctx, p, snapshots)
	if err != nil {
		return err
	}
	if o != Table {
		return p.print(o, listOf(all))
	}
	rows := make([][]string, len(all))
	for i, s := range all {
		held := ""
		if s.Status.Size != nil {
			held = s.Status.Size.String()
		}
		rows[i] = []string{s.Name, strconv.FormatBool(s.Status.Ready), s.Spec.Volume, s.Spec.NodeName, s.Spec.Pool, held, p.age(s.CreationTimestamp), s.Status.Message}
	}
	return p.table("NAME READY VOLUME NODE POOL SIZE AGE MESSAGE", rows)
}
