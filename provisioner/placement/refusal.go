package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
)

// Reason is why a node or a pool does not take a volume, in one word.
type Reason string

// The reasons.
const (
	NodeAway        Reason = "NodeAway"        // not in good order, or excluded by the class's topologies
	NoSuchPool      Reason = "NoSuchPool"      // the node has none of the pools that are allowed
	PoolUnavailable Reason = "PoolUnavailable" // refused by its configuration or its identity guard
	Unsupported     Reason = "Unsupported"     // the backend cannot make such a volume
	ModeRefused     Reason = "ModeRefused"     // an access mode cannot be honoured
	NoSpace         Reason = "NoSpace"         // not enough bytes
	JustRefused     Reason = "JustRefused"     // the node turned this request down a moment ago
)

// Why is one reason. Pool is "" where it concerns the node as a whole.
type Why struct {
	Node, Pool string
	Reason     Reason
	Detail     string // for people; names neither the node nor the pool
	Room       int64  // with NoSpace: the largest volume that would fit, in bytes
}

// Refusal says why there is no place for a request, node by node.
type Refusal struct {
	Request Request
	Whys    []Why
	// PoolNames are the names of all pools there are, whatever is allowed.
	PoolNames []string
	// Nodes is how many nodes report pools at all.
	Nodes int
}

// maxGroups is how many different reasons an error spells out. Events are
// limited to 1,024 bytes, and people to fewer.
const maxGroups = 4

func (f *Refusal) add(w Why) { f.Whys = append(f.Whys, w) }

func (f *Refusal) finish(nodes []Node) {
	names := map[string]bool{}
	for _, n := range nodes {
		for _, p := range n.Pools {
			names[p.Name] = true
		}
	}
	f.PoolNames, f.Nodes = slices.Sorted(maps.Keys(names)), len(nodes)
}

// Has says whether any pool was refused for that reason.
func (f *Refusal) Has(r Reason) bool {
	return slices.ContainsFunc(f.Whys, func(w Why) bool { return w.Reason == r })
}

// Error says what was asked, the nearest thing to an answer and the way out,
// then the reasons, with nodes that have the same one together.
func (f *Refusal) Error() string {
	return f.headline() + f.groups()
}

func (f *Refusal) headline() string {
	switch {
	case f.Nodes == 0:
		return "no node reports pools yet; is plinth node running on them?"
	case len(f.Whys) == 0:
		return fmt.Sprintf("no pools are reported by %s", list("node", "nodes", f.Request.Nodes))
	case f.unknownPool():
		return fmt.Sprintf("unknown %s: the pools are %s; change parameter pool of the StorageClass, or the nodes' pools file",
			list("pool", "pools", f.Request.Pools), strings.Join(f.PoolNames, ", "))
	case f.Has(NoSpace):
		w := slices.MaxFunc(f.Whys, func(a, b Why) int { return cmp.Compare(a.spaceRank(), b.spaceRank()) })
		return fmt.Sprintf("no pool has room for %s: the most that fits is %s, in pool %s on node %s; ask for less or free space",
			bytesize.Format(f.Request.Size), bytesize.Format(w.Room), w.Pool, w.Node)
	case f.Has(ModeRefused):
		return fmt.Sprintf("access mode %s cannot be honoured: it needs a shared pool of directories; use ReadWriteOnce or ReadWriteOncePod, or a StorageClass whose pool is shared",
			multiNode(f.Request.AccessModes))
	case f.Has(JustRefused):
		return "the nodes that could hold the volume have just refused it"
	}
	return "no pool can hold the volume"
}

func (w Why) spaceRank() int64 {
	if w.Reason != NoSpace {
		return -1
	}
	return w.Room
}

// unknownPool: the class names pools that no node has.
func (f *Refusal) unknownPool() bool {
	return len(f.Request.Pools) > 0 && !slices.ContainsFunc(f.Request.Pools, func(p string) bool { return slices.Contains(f.PoolNames, p) })
}

func (f *Refusal) groups() string {
	if f.unknownPool() {
		return ""
	}
	where := map[string][]string{}
	var order []string
	for _, w := range f.Whys {
		detail := w.Detail
		if w.Pool != "" {
			detail = "pool " + w.Pool + " " + w.Detail
		}
		if where[detail] == nil {
			order = append(order, detail)
		}
		if !slices.Contains(where[detail], w.Node) {
			where[detail] = append(where[detail], w.Node)
		}
	}
	var out strings.Builder
	for i, detail := range order {
		if i == maxGroups {
			fmt.Fprintf(&out, "; and %d other reasons", len(order)-i)
			break
		}
		sep := "; "
		if i == 0 {
			sep = " ("
		}
		fmt.Fprintf(&out, "%s%s: %s", sep, list("node", "nodes", where[detail]), detail)
	}
	if out.Len() > 0 {
		out.WriteString(")")
	}
	return out.String()
}

// refusesNode says why nothing of n will do; the zero Why if something may.
func (r Request) refusesNode(n Node) Why {
	no := func(reason Reason, detail string) Why { return Why{Node: n.Name, Reason: reason, Detail: detail} }
	switch {
	case n.Gone || n.Away != "" && len(r.Nodes) == 0:
		return no(NodeAway, n.Away)
	case !r.topologyHolds(n):
		return no(NodeAway, "is outside the allowedTopologies of the StorageClass")
	case len(n.Pools) == 0:
		return no(NoSuchPool, "has no pools")
	case !slices.ContainsFunc(n.Pools, func(p volume.PoolStatus) bool { return r.allows(p.Name) }):
		return no(NoSuchPool, "has no "+list("pool", "pool", r.Pools))
	}
	return Why{}
}

// refusesPool says why p will not do; the zero Why if it will.
func (r Request) refusesPool(n Node, p volume.PoolStatus, room int64) Why {
	no := func(reason Reason, detail string) Why {
		return Why{Node: n.Name, Pool: p.Name, Reason: reason, Detail: detail, Room: room}
	}
	switch {
	case !r.allows(p.Name):
		return no(NoSuchPool, "is not allowed by the StorageClass")
	case p.State != volume.PoolReady:
		return no(PoolUnavailable, "is unavailable: "+cmp.Or(p.Message, p.Reason, "no reason given"))
	case !slices.Contains(p.Modes, r.Mode):
		return no(Unsupported, fmt.Sprintf("(%s) has no %s volumes; pools with backend image do", p.Backend, r.Mode))
	case r.Mode == volume.Filesystem && r.FSType != "" && !slices.Contains(p.FSTypes, r.FSType):
		return no(Unsupported, fsTypeDetail(p, r.FSType))
	case r.Mkfs && (r.Mode != volume.Filesystem || len(p.FSTypes) == 0):
		return no(Unsupported, fmt.Sprintf("(%s) makes no filesystem for parameter %s; leave it out, or use a pool with backend image or device", p.Backend, volume.ParamMkfsOptions))
	case r.lacks(p) != "":
		return no(Unsupported, fmt.Sprintf("(%s) %s", p.Backend, wayOut(r.lacks(p))))
	case multiNode(r.AccessModes) != "" && !r.shares(p):
		return no(ModeRefused, modeDetail(r, p))
	case r.Avoid[PoolKey{n.Name, p.Name}]:
		return no(JustRefused, "has just refused it")
	case room < r.Size:
		return no(NoSpace, "has "+bytesize.Format(room)+" free")
	}
	return Why{}
}

// lacks is the first of what r needs that p cannot do, or "".
func (r Request) lacks(p volume.PoolStatus) volume.Ability {
	for _, a := range r.Needs {
		if !slices.Contains(p.Abilities, a) {
			return a
		}
	}
	return ""
}

// wayOut says which wish a pool without an ability cannot honour, and what to
// do about it.
func wayOut(a volume.Ability) string {
	switch a {
	case volume.AbleThick:
		return "cannot honour parameter " + volume.ParamProvisioning + ": thick; leave it out, or use a pool with backend image or device"
	case volume.AbleScrub:
		return "cannot honour parameter " + volume.ParamOnDelete + ": scrub, for nothing below it discards what is freed; leave it out, or use a pool with backend device or on a disk that discards"
	case volume.AbleAttributes:
		return "has no " + strings.Join(volume.AttributeParams(), " and ") + " for a VolumeAttributesClass; leave volumeAttributesClassName out, or use a pool with backend directory and project quotas"
	}
	return "cannot do " + string(a)
}

func (r Request) allows(pool string) bool { return len(r.Pools) == 0 || slices.Contains(r.Pools, pool) }

func (r Request) topologyHolds(n Node) bool {
	return len(r.Topologies) == 0 || slices.ContainsFunc(r.Topologies, func(t Term) bool {
		for key, values := range t {
			have, ok := n.Labels[key]
			if key == r.Key {
				have, ok = n.Name, true
			}
			if !ok || !slices.Contains(values, have) {
				return false
			}
		}
		return true
	})
}

func fsTypeDetail(p volume.PoolStatus, want string) string {
	if len(p.FSTypes) == 0 {
		return fmt.Sprintf("(%s) gives directories and makes no %s; leave csi.storage.k8s.io/fstype out, or use a pool with backend image", p.Backend, want)
	}
	return fmt.Sprintf("(%s) makes %s, not %s", p.Backend, strings.Join(p.FSTypes, " and "), want)
}

func modeDetail(r Request, p volume.PoolStatus) string {
	mode := multiNode(r.AccessModes)
	switch {
	case !p.Shared:
		return fmt.Sprintf("is local to its node and cannot be %s", mode)
	case r.Pinned:
		return fmt.Sprintf("is shared, but a local volume belongs to one node and cannot be %s; use volumeType csi or hostPath", mode)
	}
	return fmt.Sprintf("(%s) is shared, but only its directories can be %s", p.Backend, mode)
}

// multiNode returns the first mode that pods of several nodes may use at
// once, or "".
func multiNode(modes []volume.AccessMode) volume.AccessMode {
	for _, m := range modes {
		if m != volume.ReadWriteOnce && m != volume.ReadWriteOncePod {
			return m
		}
	}
	return ""
}

// maxListed is how many names of nodes or pools are spelt out in one place.
const maxListed = 3

func list(one, many string, names []string) string {
	switch n := len(names); {
	case n == 1:
		return one + " " + names[0]
	case n > maxListed:
		return fmt.Sprintf("%s %s and %d more", many, strings.Join(names[:maxListed], ", "), n-maxListed)
	}
	return many + " " + strings.Join(names, ", ")
}
