package provisioner

import (
	"cmp"
	"reflect"
	"slices"
	"testing"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/capacity"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

func TestOffers(t *testing.T) {
	const gi = 1 << 30
	node := func(name string, pools ...v1alpha1.PoolStatus) placement.Node {
		n := &v1alpha1.PlinthNode{Status: v1alpha1.PlinthNodeStatus{Pools: pools}}
		return placement.Node{Name: name, Pools: placement.Pools(n)}
	}
	lost := btrfs("a", "9Gi")
	lost.State = "Unavailable"
	local := func(class, node string, available, most int64) capacity.Offer {
		return capacity.Offer{Class: class, Place: "node/" + node, Nodes: []string{node}, Available: available, Max: most}
	}
	for _, tc := range []struct {
		name       string
		parameters map[string]string
		nodes      []placement.Node
		want       []capacity.Offer
	}{
		{
			name:  "any pool: the sum, and the largest",
			nodes: []placement.Node{node("n1", btrfs("a", "2Gi"), image("b", "3Gi")), node("n2", btrfs("a", "0"))},
			want:  []capacity.Offer{local("sc", "n1", 5*gi, 3*gi), local("sc", "n2", 0, 0)},
		},
		{
			name: "the pools of the class", parameters: map[string]string{"pool": "b"},
			nodes: []placement.Node{node("n1", btrfs("a", "2Gi"), image("b", "3Gi")), node("n2", btrfs("a", "2Gi"))},
			want:  []capacity.Offer{local("sc", "n1", 3*gi, 3*gi)},
		},
		{name: "lost pools offer nothing", nodes: []placement.Node{node("n1", lost)}},
		{name: "a class at fault offers nothing", parameters: map[string]string{"x": "y"}, nodes: []placement.Node{node("n1", btrfs("a", "2Gi"))}},
		{
			name:  "a shared pool once, over its nodes",
			nodes: []placement.Node{node("n2", sharedPool("s", "4Gi")), node("n1", sharedPool("s", "4Gi"), btrfs("a", "1Gi")), node("n3", btrfs("a", "1Gi"))},
			want: []capacity.Offer{
				local("sc", "n1", gi, gi), local("sc", "n3", gi, gi),
				{Class: "sc", Place: "shared/uuid-s/n1,n2", Nodes: []string{"n1", "n2"}, Available: 4 * gi, Max: 4 * gi},
			},
		},
		{
			name: "a shared pool for local volumes is of each node", parameters: map[string]string{"volumeType": "local"},
			nodes: []placement.Node{node("n1", sharedPool("s", "4Gi"))},
			want:  []capacity.Offer{local("sc", "n1", 4*gi, 4*gi)},
		},
		{
			name: "only pools that allocate", parameters: map[string]string{"provisioning": "thick", "mode": "0700"},
			nodes: []placement.Node{node("n1", btrfs("a", "2Gi"), image("b", "3Gi"))},
			want:  []capacity.Offer{local("sc", "n1", 3*gi, 3*gi)},
		},
		{name: "no pool scrubs", parameters: map[string]string{"onDelete": "scrub"}, nodes: []placement.Node{node("n1", image("b", "3Gi"))}},
		{
			name: "only pools that make the filesystem", parameters: map[string]string{"csi.storage.k8s.io/fstype": "xfs"},
			nodes: []placement.Node{node("n1", btrfs("a", "2Gi"), image("b", "3Gi"))},
			want:  []capacity.Offer{local("sc", "n1", 3*gi, 3*gi)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			other := class("other", nil)
			other.Provisioner = "someone.else"
			got := offers(testDriver, []*storagev1.StorageClass{class("sc", tc.parameters), other}, tc.nodes)
			slices.SortFunc(got, func(a, b capacity.Offer) int { return cmp.Compare(a.Place, b.Place) })
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v\nwant %+v", got, tc.want)
			}
		})
	}
}
