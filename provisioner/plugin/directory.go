package plugin

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Import is a directory that is to become a volume, in place.
type Import struct {
	Volume     string // its name
	Node, Pool string
	From       string // below the pool's path, or absolute
	Size       string
	Type       string // of the volume: csi, local or hostPath
	Namespace  string // whose claims may have it
}

// Import writes the retained volume that the directory becomes.
func (p *Plugin) Import(ctx context.Context, i Import) error {
	if _, err := volume.ParseID(i.Volume); err != nil {
		return refuse("%q cannot be the name of a volume: one has small letters, digits and '-' inside, and at most 63 characters", i.Volume)
	}
	types := []v1alpha1.VolumeType{v1alpha1.VolumeTypeCSI, v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath}
	if !slices.Contains(types, v1alpha1.VolumeType(i.Type)) {
		return refuse("--type %q is none; name that of the class of the claim that is to have it: csi, local or hostPath", i.Type)
	}
	size, err := resource.ParseQuantity(i.Size)
	if err != nil || size.Sign() <= 0 {
		return refuse("--size %q is no size; one looks like 10Gi, and is at least what the directory holds", i.Size)
	}
	pool, err := p.directoryPool(ctx, i.Node, i.Pool)
	if err != nil {
		return err
	}
	from, err := below(pool, "--from", i.From)
	if err != nil {
		return err
	}
	at := path.Join(pool.Path, string(from))
	if err := p.unclaimed(ctx, i.Node, at); err != nil {
		return err
	}
	u, err := unstructuredOf(&v1alpha1.PlinthVolume{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PlinthVolume"},
		ObjectMeta: metav1.ObjectMeta{Name: i.Volume},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: i.Node, Pool: i.Pool, Shared: pool.Shared, ImportFrom: string(from), Size: size, VolumeMode: "Filesystem",
			VolumeType: v1alpha1.VolumeType(i.Type), Retained: true, ClaimNamespace: i.Namespace,
		},
	})
	if err != nil {
		return err
	}
	_, err = p.Client.Resource(volumes).Create(ctx, u, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return refuse("there is a volume %s already; give another name", i.Volume)
	}
	if err != nil {
		return fmt.Errorf("creating the PlinthVolume %s: %w", i.Volume, err)
	}
	_, err = fmt.Fprintf(p.Out, `plinthvolume/%[1]s created; it becomes %[2]s on node %[3]s
see to it that no pod has that as a hostPath any more
it is Retained when it is done, or says why not: kubectl plinth list -n %[4]s
a claim takes it then: kubectl plinth adopt %[1]s --claim %[4]s/NAME --class CLASS
`, i.Volume, at, i.Node, i.Namespace)
	return err
}

// unclaimed refuses a directory that a PersistentVolume still leads to.
func (p *Plugin) unclaimed(ctx context.Context, node, at string) error {
	all, err := list[corev1.PersistentVolume](ctx, p, pvs)
	if err != nil {
		return err
	}
	for i := range all {
		pv := &all[i]
		leads := ""
		switch {
		case pv.Spec.HostPath != nil:
			leads = pv.Spec.HostPath.Path
		case pv.Spec.Local != nil:
			leads = pv.Spec.Local.Path
		}
		if leads != "" && path.Clean(leads) == at && reaches(pv, node) {
			return refuse("PersistentVolume %s leads to %s; give it the reclaim policy Retain, end its pods, and delete its claim, then it: kubectl patch pv %s -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'", pv.Name, at, pv.Name)
		}
	}
	return nil
}

// reaches reports whether a PersistentVolume may be used on a node. Its node's
// name stands in the affinity of those that provisioners make.
func reaches(pv *corev1.PersistentVolume, node string) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return true
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range slices.Concat(term.MatchExpressions, term.MatchFields) {
			if slices.Contains(e.Values, node) {
				return true
			}
		}
	}
	return false
}

// Release makes a retained volume the directory to, below its pool's path, in
// place: the volume is no more, its data stays. It may be repeated.
func (p *Plugin) Release(ctx context.Context, name, to string) error {
	v, err := p.volume(ctx, name)
	if err != nil {
		return err
	}
	pool, err := p.directoryPool(ctx, v.Spec.NodeName, v.Spec.Pool)
	if err != nil {
		return err
	}
	place, err := below(pool, "--to", to)
	if err != nil {
		return err
	}
	switch {
	case v.Spec.ReleaseTo == string(place) && v.DeletionTimestamp == nil:
	case v.Spec.ReleaseTo != "":
		return refuse("volume %s is released already, to %s of pool %s; move the directory once that is done", v.Name, v.Spec.ReleaseTo, v.Spec.Pool)
	case v.Spec.TrashedUntil != nil:
		return refuse("volume %[1]s is in the trash; take it out first: kubectl plinth undelete %[1]s", v.Name)
	default:
		if err := p.free(ctx, v, "released"); err != nil {
			return err
		}
		if err := p.patchSpec(ctx, v, map[string]any{"releaseTo": place}); err != nil {
			return fmt.Errorf("releasing volume %s: %w", v.Name, err)
		}
	}
	_, err = fmt.Fprintf(p.Out, `plinthvolume/%[1]s becomes %[2]s on node %[3]s
it is Released when it is done, or says why not: kubectl plinth list --node %[3]s
then write a PersistentVolume for that directory, and delete what is left, which is no data: kubectl delete plinthvolume %[1]s
`, v.Name, path.Join(pool.Path, string(place)), v.Spec.NodeName)
	return err
}

// directoryPool finds the pool of a node, whose volumes have to be directories.
func (p *Plugin) directoryPool(ctx context.Context, node, pool string) (v1alpha1.PoolStatus, error) {
	n, err := get[v1alpha1.PlinthNode](ctx, p.Client.Resource(nodes), "PlinthNode", node)
	if apierrors.IsNotFound(err) {
		return v1alpha1.PoolStatus{}, refuse("there is no node %s with pools; `kubectl plinth nodes` shows those that there are", node)
	}
	if err != nil {
		return v1alpha1.PoolStatus{}, err
	}
	i := slices.IndexFunc(n.Status.Pools, func(s v1alpha1.PoolStatus) bool { return s.Name == pool })
	if i < 0 {
		return v1alpha1.PoolStatus{}, refuse("node %[1]s has no pool %[2]s; `kubectl plinth pools --node %[1]s` shows those that it has", node, pool)
	}
	switch s := n.Status.Pools[i]; {
	case s.State != "Ready":
		return s, refuse("pool %s of node %s does not serve now: %s", pool, node, s.Message)
	case s.Backend != "directory":
		return s, refuse("pool %s of node %s keeps volumes by backend %s; only those of a pool with backend directory are directories: copy the data instead", pool, node, s.Backend)
	default:
		return s, nil
	}
}

// below is a place below the pool's path, which may be written absolutely.
func below(pool v1alpha1.PoolStatus, flag, at string) (volume.Path, error) {
	relative := at
	if path.IsAbs(at) {
		var found bool
		if relative, found = strings.CutPrefix(path.Clean(at), strings.TrimSuffix(pool.Path, "/")+"/"); !found {
			return "", refuse("%s %s is not below %s, where pool %s is", flag, at, pool.Path, pool.Name)
		}
	}
	p, err := volume.ParsePath(relative)
	if err != nil {
		return "", refuse("%s: %v", flag, err)
	}
	if first, _, _ := strings.Cut(relative, "/"); slices.Contains([]string{"volumes", "snapshots", "paths"}, first) {
		return "", refuse("%s %s is in a place of Plinth's own; name one outside of %s", flag, at, path.Join(pool.Path, first))
	}
	return p, nil
}
