// Package placement decides where a volume goes: pure functions from what a
// request needs and what the nodes report to a node and a pool, or to the
// reasons, node by node, why there is none.
//
// Of the pools that can serve a request the one with most free space takes
// it. What has been promised to volumes that the nodes do not report yet is
// taken off first, so that a burst of requests spreads instead of racing for
// the same bytes; the reservation that counts is made on the node.
package placement

import (
	"cmp"
	"slices"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Request is what a volume needs of its place.
type Request struct {
	Size        int64 // bytes
	Mode        volume.Mode
	FSType      string // "" takes what the pool gives
	AccessModes []volume.AccessMode
	// Needs are what only some pools can do; Mkfs says that there are options
	// for mkfs, so that the pool has to make a filesystem.
	Needs []volume.Ability
	Mkfs  bool
	// Pinned asks for a volume of one node, also where the pool is shared:
	// local PersistentVolumes cannot be without a node.
	Pinned bool
	// Pools are the names that are allowed, in no order; empty allows any.
	Pools []string
	// Nodes are where the volume may live, best first; empty is anywhere.
	Nodes []string
	// Topologies are the terms of a StorageClass's allowedTopologies, of
	// which one must hold; empty allows any node.
	Topologies []Term
	// Key is the topology key that stands for a node's own name.
	Key string
	// Avoid are pools that have just refused this request.
	Avoid map[PoolKey]bool
}

// Term holds on a node whose labels have, for each key, one of the values.
type Term map[string][]string

// PoolKey names a pool of a node.
type PoolKey struct{ Node, Pool string }

// Node is a node as far as placement looks at it.
type Node struct {
	Name   string
	Labels map[string]string
	// Away says why nothing new should be placed here unasked, such as "is
	// not ready"; "" for a node in good order. A node that the request names
	// is not judged by it.
	Away string
	// Gone: it is no node of the cluster, so nothing is placed here, asked or not.
	Gone  bool
	Pools []volume.PoolStatus
}

// Choice is where a volume goes.
type Choice struct {
	Node, Pool, Backend string
	FSType              string // that the volume will have; "" where the pool gives directories
	// Shared is true where every node that has the pool reaches the volume.
	Shared bool
	Free   int64 // bytes that were available in the pool
	Among  int   // how many pools could have taken it
}

// Place chooses. taken says how many bytes of a pool are promised beyond what
// its status shows. The error is a *Refusal.
func Place(r Request, nodes []Node, taken func(PoolKey) int64) (Choice, error) {
	refusal := &Refusal{Request: r}
	var fits []candidate
	for _, n := range nodes {
		rank := 0
		if len(r.Nodes) > 0 {
			if rank = slices.Index(r.Nodes, n.Name); rank < 0 {
				continue
			}
		}
		if why := r.refusesNode(n); why.Reason != "" {
			refusal.add(why)
			continue
		}
		for _, p := range n.Pools {
			room := Room(p, taken(PoolKey{n.Name, p.Name}))
			switch why := r.refusesPool(n, p, room); why.Reason {
			case "":
				fits = append(fits, candidate{node: n.Name, pool: p, room: room, rank: rank})
			case NoSuchPool: // the class does not ask for it
			default:
				refusal.add(why)
			}
		}
	}
	if len(fits) == 0 {
		refusal.finish(nodes)
		return Choice{}, refusal
	}
	best := slices.MinFunc(fits, candidate.compare)
	return Choice{
		Node: best.node, Pool: best.pool.Name, Backend: best.pool.Backend,
		FSType: r.fsType(best.pool), Shared: r.shares(best.pool),
		Free: best.room, Among: len(fits),
	}, nil
}

// Room is the largest volume that p can take, in bytes, when so many bytes
// are promised beyond what its status shows.
func Room(p volume.PoolStatus, taken int64) int64 {
	room := max(p.Available-taken, 0)
	if p.MaxVolume > 0 {
		room = min(room, p.MaxVolume)
	}
	return room
}

// Serves says whether p could ever serve r, whatever space it has.
func (r Request) Serves(node string, p volume.PoolStatus) bool {
	r.Size = 0
	return r.refusesPool(Node{Name: node}, p, 0).Reason == ""
}

// Admits says whether a volume for r may be on n at all, whatever its pools.
func (r Request) Admits(n Node) bool { return r.topologyHolds(n) }

// Reaches says whether every node that has p would reach a volume for r in it.
func (r Request) Reaches(p volume.PoolStatus) bool { return r.shares(p) }

type candidate struct {
	node string
	pool volume.PoolStatus
	room int64
	rank int
}

// compare puts the best first: the requester's order, then space, then the
// pool with fewer volumes, then names, so that the same input always gives
// the same answer.
func (a candidate) compare(b candidate) int {
	return cmp.Or(
		cmp.Compare(a.rank, b.rank),
		cmp.Compare(b.room, a.room),
		cmp.Compare(a.pool.Volumes, b.pool.Volumes),
		cmp.Compare(a.node, b.node),
		cmp.Compare(a.pool.Name, b.pool.Name),
	)
}

// shares: a directory in a shared pool is reached from every node. An image
// or a block device is not: two nodes that mount one filesystem destroy it.
func (r Request) shares(p volume.PoolStatus) bool {
	return p.Shared && !r.Pinned && r.Mode == volume.Filesystem && len(p.FSTypes) == 0
}

func (r Request) fsType(p volume.PoolStatus) string {
	if r.Mode == volume.Block || len(p.FSTypes) == 0 {
		return ""
	}
	return cmp.Or(r.FSType, p.FSTypes[0])
}
