package placement

import (
	"errors"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

const gi = 1 << 30

func pool(name string, free int64, change ...func(*volume.PoolStatus)) volume.PoolStatus {
	p := volume.PoolStatus{
		Name: name, Backend: "btrfs", UUID: "uuid-" + name, State: volume.PoolReady, Total: 100 * gi,
		Available: free, MaxVolume: free, Modes: []volume.Mode{volume.Filesystem}, Enforced: true,
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func images(p *volume.PoolStatus) {
	p.Backend, p.Modes, p.FSTypes = "image", []volume.Mode{volume.Filesystem, volume.Block}, []string{"ext4", "xfs"}
	p.Abilities = []volume.Ability{volume.AbleThick}
}

func shared(p *volume.PoolStatus) { p.Backend, p.Shared = "directory", true }

func away(p *volume.PoolStatus) {
	p.State, p.Reason, p.Message = volume.PoolUnavailable, "NotMounted", "nothing is mounted at /mnt/a"
}

func node(name string, pools ...volume.PoolStatus) Node {
	return Node{Name: name, Labels: map[string]string{"zone": "z-" + name}, Pools: pools}
}

func modes(m ...volume.AccessMode) []volume.AccessMode { return m }

func TestPlace(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ask   Request
		nodes []Node
		taken map[PoolKey]int64
		want  Choice // Free and Backend are not compared
		says  []string
	}{
		{
			name: "most free", ask: Request{Size: gi},
			nodes: []Node{node("n1", pool("a", 2*gi)), node("n2", pool("a", 4*gi), pool("b", 3*gi))},
			want:  Choice{Node: "n2", Pool: "a", Among: 3},
		},
		{
			name: "what is promised counts", ask: Request{Size: gi}, taken: map[PoolKey]int64{{"n2", "a"}: 3 * gi},
			nodes: []Node{node("n1", pool("a", 2*gi)), node("n2", pool("a", 4*gi))},
			want:  Choice{Node: "n1", Pool: "a", Among: 2},
		},
		{
			name: "fits exactly", ask: Request{Size: 2 * gi},
			nodes: []Node{node("n1", pool("a", 2*gi))}, want: Choice{Node: "n1", Pool: "a", Among: 1},
		},
		{
			name: "equal pools: the emptier, then names", ask: Request{Size: gi},
			nodes: []Node{
				node("n2", pool("a", 2*gi)), node("n1", pool("b", 2*gi), pool("c", 2*gi, func(p *volume.PoolStatus) { p.Volumes = 1 })),
			},
			want: Choice{Node: "n1", Pool: "b", Among: 3},
		},
		{
			name: "the first node that the request names", ask: Request{Size: gi, Nodes: []string{"n1", "n2"}},
			nodes: []Node{node("n2", pool("a", 9*gi)), node("n1", pool("a", 2*gi)), node("n3", pool("a", 99*gi))},
			want:  Choice{Node: "n1", Pool: "a", Among: 2},
		},
		{
			name: "the largest single volume bounds", ask: Request{Size: 2 * gi},
			nodes: []Node{node("n1", pool("a", 9*gi, func(p *volume.PoolStatus) { p.MaxVolume = gi }))},
			says:  []string{"no pool has room for 2Gi", "the most that fits is 1Gi"},
		},
		{
			name: "a filesystem where the pool formats", ask: Request{Size: gi, Mode: volume.Filesystem},
			nodes: []Node{node("n1", pool("a", 2*gi, images))}, want: Choice{Node: "n1", Pool: "a", FSType: "ext4", Among: 1},
		},
		{
			name: "the filesystem that is asked for", ask: Request{Size: gi, FSType: "xfs"},
			nodes: []Node{node("n1", pool("a", 9*gi), pool("b", 2*gi, images))}, want: Choice{Node: "n1", Pool: "b", FSType: "xfs", Among: 1},
		},
		{
			name: "block", ask: Request{Size: gi, Mode: volume.Block},
			nodes: []Node{node("n1", pool("a", 9*gi), pool("b", 2*gi, images))}, want: Choice{Node: "n1", Pool: "b", Among: 1},
		},
		{
			name: "bytes allocated at once", ask: Request{Size: gi, Needs: []volume.Ability{volume.AbleThick}},
			nodes: []Node{node("n1", pool("a", 9*gi), pool("b", 2*gi, images))}, want: Choice{Node: "n1", Pool: "b", FSType: "ext4", Among: 1},
		},
		{
			name: "no pool allocates", ask: Request{Size: gi, Needs: []volume.Ability{volume.AbleThick}},
			nodes: []Node{node("n1", pool("a", 9*gi))}, says: []string{"node n1: pool a (btrfs) cannot honour parameter provisioning: thick", "backend image or device"},
		},
		{
			name: "no pool scrubs", ask: Request{Size: gi, Needs: []volume.Ability{volume.AbleThick, volume.AbleScrub}},
			nodes: []Node{node("n1", pool("a", 9*gi, images))}, says: []string{"pool a (image) cannot honour parameter onDelete: scrub", "backend device"},
		},
		{
			name: "no pool limits inodes", ask: Request{Size: gi, Needs: []volume.Ability{volume.AbleAttributes}},
			nodes: []Node{node("n1", pool("a", 9*gi))}, says: []string{"pool a (btrfs) has no inodeLimit and softLimit", "volumeAttributesClassName", "project quotas"},
		},
		{
			name: "options for mkfs", ask: Request{Size: gi, Mkfs: true},
			nodes: []Node{node("n1", pool("a", 9*gi), pool("b", 2*gi, images))}, want: Choice{Node: "n1", Pool: "b", FSType: "ext4", Among: 1},
		},
		{
			name: "options for mkfs where nothing is made", ask: Request{Size: gi, Mkfs: true},
			nodes: []Node{node("n1", pool("a", 9*gi))}, says: []string{"pool a (btrfs) makes no filesystem for parameter mkfsOptions", "backend image or device"},
		},
		{
			name: "shared", ask: Request{Size: gi, AccessModes: modes(volume.ReadWriteMany)},
			nodes: []Node{node("n1", pool("a", 9*gi), pool("s", 2*gi, shared))}, want: Choice{Node: "n1", Pool: "s", Shared: true, Among: 1},
		},
		{
			name: "a shared pool of images is of one node", ask: Request{Size: gi},
			nodes: []Node{node("n1", pool("s", 2*gi, shared, images))}, want: Choice{Node: "n1", Pool: "s", FSType: "ext4", Among: 1},
		},
		{
			name: "many writers on a shared pool of images", ask: Request{Size: gi, AccessModes: modes(volume.ReadWriteOnce, volume.ReadWriteMany)},
			nodes: []Node{node("n1", pool("s", 2*gi, shared, images))}, says: []string{"ReadWriteMany", "only its directories"},
		},
		{
			name: "local volumes are of one node", ask: Request{Size: gi, Pinned: true},
			nodes: []Node{node("n1", pool("s", 2*gi, shared))}, want: Choice{Node: "n1", Pool: "s", Among: 1},
		},
		{
			name: "many writers on a local volume", ask: Request{Size: gi, Pinned: true, AccessModes: modes(volume.ReadWriteMany)},
			nodes: []Node{node("n1", pool("s", 2*gi, shared))}, says: []string{"a local volume belongs to one node", "volumeType csi or hostPath"},
		},
		{
			name: "topologies", ask: Request{Size: gi, Topologies: []Term{{"zone": {"z-n2"}}}},
			nodes: []Node{node("n1", pool("a", 9*gi)), node("n2", pool("a", 2*gi))}, want: Choice{Node: "n2", Pool: "a", Among: 1},
		},
		{
			name: "topology by the node's own name", ask: Request{Size: gi, Key: "d/node", Topologies: []Term{{"d/node": {"n2"}}}},
			nodes: []Node{node("n1", pool("a", 9*gi)), node("n2", pool("a", 2*gi))}, want: Choice{Node: "n2", Pool: "a", Among: 1},
		},
		{
			name: "no topology holds", ask: Request{Size: gi, Topologies: []Term{{"rack": {"r1"}}}},
			nodes: []Node{node("n1", pool("a", 9*gi))}, says: []string{"node n1: is outside the allowedTopologies"},
		},
		{
			name: "a node that is away is not chosen", ask: Request{Size: gi},
			nodes: []Node{{Name: "n1", Away: "is cordoned", Pools: []volume.PoolStatus{pool("a", 9*gi)}}, node("n2", pool("a", 2*gi))},
			want:  Choice{Node: "n2", Pool: "a", Among: 1},
		},
		{
			name: "unless the request names it", ask: Request{Size: gi, Nodes: []string{"n1"}},
			nodes: []Node{{Name: "n1", Away: "is cordoned", Pools: []volume.PoolStatus{pool("a", 9*gi)}}},
			want:  Choice{Node: "n1", Pool: "a", Among: 1},
		},
		{
			name: "a node that is gone is not chosen even then", ask: Request{Size: gi, Nodes: []string{"n1"}},
			nodes: []Node{{Name: "n1", Away: "is not a node of the cluster", Gone: true, Pools: []volume.PoolStatus{pool("a", 9*gi)}}},
			says:  []string{"node n1: is not a node of the cluster"},
		},
		{
			name: "an unavailable pool", ask: Request{Size: gi},
			nodes: []Node{node("n1", pool("a", 9*gi, away))}, says: []string{"node n1", "pool a is unavailable: nothing is mounted at /mnt/a"},
		},
		{
			name: "a pool that no node has", ask: Request{Size: gi, Pools: []string{"x"}},
			nodes: []Node{node("n1", pool("b", 9*gi)), node("n2", pool("a", 9*gi))}, says: []string{"unknown pool x: the pools are a, b"},
		},
		{
			name: "a pool that no node has, on a named node", ask: Request{Size: gi, Pools: []string{"x"}, Nodes: []string{"n1"}},
			nodes: []Node{node("n1", pool("b", 9*gi)), node("n2", pool("a", 9*gi))}, says: []string{"unknown pool x: the pools are a, b"},
		},
		{
			name: "a pool that the named node lacks", ask: Request{Size: gi, Pools: []string{"a"}, Nodes: []string{"n1"}},
			nodes: []Node{node("n1", pool("b", 9*gi)), node("n2", pool("a", 9*gi))}, says: []string{"node n1: has no pool a"},
		},
		{
			name: "the largest of what is too small", ask: Request{Size: 10 * gi},
			nodes: []Node{node("n1", pool("a", gi)), node("n2", pool("a", gi), pool("b", 3*gi/2))},
			says:  []string{"no pool has room for 10Gi", "1.5Gi, in pool b on node n2", "nodes n1, n2: pool a has 1Gi free", "node n2: pool b has 1.5Gi free"},
		},
		{
			name: "just refused", ask: Request{Size: gi, Avoid: map[PoolKey]bool{{"n1", "a"}: true}},
			nodes: []Node{node("n1", pool("a", 9*gi))}, says: []string{"just refused"},
		},
		{name: "nobody", ask: Request{Size: gi}, says: []string{"no node reports pools"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.ask.Mode == "" {
				tc.ask.Mode = volume.Filesystem
			}
			got, err := Place(tc.ask, tc.nodes, func(k PoolKey) int64 { return tc.taken[k] })
			if len(tc.says) > 0 {
				var refusal *Refusal
				if !errors.As(err, &refusal) {
					t.Fatalf("got %+v, %v", got, err)
				}
				for _, word := range tc.says {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("refusal %q does not say %q", err, word)
					}
				}
				return
			}
			got.Free, got.Backend = 0, ""
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

// An event holds 1,024 bytes, whatever the size of the cluster.
func TestRefusalOfALargeCluster(t *testing.T) {
	var nodes []Node
	for i := range 1000 {
		nodes = append(nodes, node("node-"+strings.Repeat("x", 20)+string(rune('a'+i%26)), pool("a", int64(i)<<20)))
	}
	_, err := Place(Request{Size: 10 * gi, Mode: volume.Filesystem}, nodes, func(PoolKey) int64 { return 0 })
	if err == nil || len(err.Error()) > 1024 {
		t.Fatalf("%d bytes: %v", len(err.Error()), err)
	}
}
