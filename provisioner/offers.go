package provisioner

import (
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/capacity"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// offers are what the classes of this driver can give, place by place. A
// class that cannot be honoured offers nothing.
func offers(driver string, classes []*storagev1.StorageClass, nodes []placement.Node) []capacity.Offer {
	var out []capacity.Offer
	for _, sc := range classes {
		if sc.Provisioner != driver {
			continue
		}
		class, err := ParseClass(sc)
		if err != nil {
			continue
		}
		out = append(out, classOffers(driver, class, nodes)...)
	}
	return out
}

func classOffers(driver string, class Class, nodes []placement.Node) []capacity.Offer {
	r := placement.Request{
		Mode: volume.Filesystem, FSType: class.FSType, Pools: class.Pools, Topologies: class.Topologies,
		Needs: class.needs(), Mkfs: len(class.Make.MkfsOptions) > 0,
		Pinned: class.Type == v1alpha1.VolumeTypeLocal, Key: TopologyKey(driver),
	}
	var out []capacity.Offer
	shared := map[string]*capacity.Offer{}
	for _, n := range nodes {
		if !r.Admits(n) {
			continue
		}
		local := capacity.Offer{Class: class.Name, Place: "node/" + n.Name, Nodes: []string{n.Name}}
		serves := false
		for _, p := range n.Pools {
			switch {
			case !canServe(r, class, n.Name, p):
			case r.Reaches(p):
				o := shared[p.UUID]
				if o == nil {
					o = &capacity.Offer{Class: class.Name, Available: p.Available, Max: placement.Room(p, 0)}
					shared[p.UUID] = o
				}
				o.Nodes = append(o.Nodes, n.Name)
			default:
				serves = true
				local.Available += p.Available
				local.Max = max(local.Max, placement.Room(p, 0))
			}
		}
		if serves {
			out = append(out, local)
		}
	}
	for uuid, o := range shared {
		slices.Sort(o.Nodes)
		o.Place = "shared/" + uuid + "/" + strings.Join(o.Nodes, ",")
		out = append(out, *o)
	}
	return out
}

// canServe: an offer does not know whether a claim wants a filesystem or a
// block device.
func canServe(r placement.Request, class Class, node string, p volume.PoolStatus) bool {
	if r.Serves(node, p) {
		return true
	}
	r.Mode, r.FSType = volume.Block, ""
	return class.Type == v1alpha1.VolumeTypeCSI && class.Make.Root == (volume.Root{}) && r.Serves(node, p)
}
