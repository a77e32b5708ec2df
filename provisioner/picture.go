package provisioner

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// picture is what placement sees: what the nodes report, less what has been
// promised since. Watches keep it; it never asks anybody.
type picture struct {
	// node looks up a Node by name, nil if there is none.
	node func(name string) *corev1.Node

	mu      sync.Mutex
	reports map[string]report
	shared  map[string]sharedReport // by UUID: the newest report of a shared pool
	// promises are volumes whose bytes the reports do not count yet.
	promises map[string]promise
	sums     map[placement.PoolKey]int64
}

type report struct {
	version uint64
	pools   []volume.PoolStatus
}

type sharedReport struct {
	version uint64
	pool    volume.PoolStatus
}

type promise struct {
	at   placement.PoolKey
	size int64
	node string
	made bool // the node says so; its next report counts the volume
}

func newPicture(node func(string) *corev1.Node) *picture {
	return &picture{
		node: node, reports: map[string]report{}, shared: map[string]sharedReport{},
		promises: map[string]promise{}, sums: map[placement.PoolKey]int64{},
	}
}

// nodeChanged takes in a node's report, which counts all that the node has made.
func (p *picture) nodeChanged(_, n *v1alpha1.PlinthNode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	version, err := strconv.ParseUint(n.ResourceVersion, 10, 64)
	if err != nil {
		version = 0 // not comparable (KEP-5504 promises that it is)
	}
	r := report{version: version, pools: placement.Pools(n)}
	p.reports[n.Name] = r
	for _, pool := range r.pools {
		if pool.Shared && pool.UUID != "" && pool.State == volume.PoolReady && version >= p.shared[pool.UUID].version {
			p.shared[pool.UUID] = sharedReport{version: version, pool: pool}
		}
	}
	for name, held := range p.promises {
		if held.made && held.node == n.Name {
			p.release(name)
		}
	}
}

func (p *picture) nodeGone(n *v1alpha1.PlinthNode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reports, n.Name)
}

// volumeChanged keeps the promises in step with the ledger, also with volumes
// that another process, or this one before a restart, has written.
func (p *picture) volumeChanged(v *v1alpha1.PlinthVolume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held, ok := p.promises[v.Name]
	switch {
	case v.DeletionTimestamp != nil || v.Status.Phase == v1alpha1.VolumeFailed:
		p.release(v.Name)
	case v.Status.Size != nil && ok:
		held.made = true
		p.promises[v.Name] = held
	case v.Status.Size == nil && !ok:
		p.hold(v)
	}
}

func (p *picture) volumeGone(v *v1alpha1.PlinthVolume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(v.Name)
}

// hold and release keep the sums; p.mu is held.
func (p *picture) hold(v *v1alpha1.PlinthVolume) {
	h := promise{
		at:   p.key(placement.PoolKey{Node: v.Spec.NodeName, Pool: v.Spec.Pool}),
		size: v.Spec.Size.Value(), node: v.Spec.NodeName,
	}
	p.promises[v.Name] = h
	p.sums[h.at] += h.size
}

func (p *picture) release(name string) {
	h, ok := p.promises[name]
	if !ok {
		return
	}
	delete(p.promises, name)
	if p.sums[h.at] -= h.size; p.sums[h.at] == 0 {
		delete(p.sums, h.at)
	}
}

// key names a pool, and a shared one by its UUID whatever the node.
func (p *picture) key(k placement.PoolKey) placement.PoolKey {
	for _, pool := range p.reports[k.Node].pools {
		if pool.Name == k.Pool && pool.Shared && pool.UUID != "" {
			return placement.PoolKey{Pool: pool.UUID}
		}
	}
	return k
}

// place chooses a place for r and promises it to the volume that make builds
// of the choice, in one step, so that two claims never get the same bytes.
func (p *picture) place(r placement.Request, make func(placement.Choice) *v1alpha1.PlinthVolume) (placement.Choice, *v1alpha1.PlinthVolume, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, err := placement.Place(r, p.nodes(r.Nodes), p.taken)
	if err != nil {
		return at, nil, err
	}
	v := make(at)
	if _, ok := p.promises[v.Name]; !ok {
		p.hold(v)
	}
	return at, v, nil
}

// fits says whether there is a place for r now.
func (p *picture) fits(r placement.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := placement.Place(r, p.nodes(r.Nodes), p.taken)
	return err
}

// taken is for placement.Place; p.mu is held.
func (p *picture) taken(k placement.PoolKey) int64 { return p.sums[p.key(k)] }

// all returns every node as placement sees it, by name.
func (p *picture) all() []placement.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes(nil)
}

// nodes returns the named nodes, or all; p.mu is held.
func (p *picture) nodes(names []string) []placement.Node {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(p.reports))
	}
	out := make([]placement.Node, 0, len(names))
	for _, name := range names {
		r, ok := p.reports[name]
		if !ok {
			continue
		}
		n := placement.Node{Name: name, Pools: p.withShared(r), Away: p.away(name)}
		if node := p.node(name); node != nil {
			n.Labels = node.Labels
		} else {
			n.Gone = true
		}
		out = append(out, n)
	}
	return out
}

// withShared puts the newest figures of shared pools in a node's report.
func (p *picture) withShared(r report) []volume.PoolStatus {
	pools := r.pools
	for i, pool := range r.pools {
		newest, ok := p.shared[pool.UUID]
		if !ok || !pool.Shared || pool.State != volume.PoolReady || newest.version <= r.version {
			continue
		}
		if &pools[0] == &r.pools[0] {
			pools = slices.Clone(r.pools)
		}
		pools[i].Available, pools[i].MaxVolume = newest.pool.Available, newest.pool.MaxVolume
		pools[i].Reserved, pools[i].Volumes = newest.pool.Reserved, newest.pool.Volumes
	}
	return pools
}

// away says why nothing new should go to the named node unasked, or "".
func (p *picture) away(name string) string {
	if node := p.node(name); node != nil {
		return away(node)
	}
	return "is not a node of the cluster"
}

func away(n *corev1.Node) string {
	if n.Spec.Unschedulable {
		return "is cordoned"
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return "is not ready: " + cmp.Or(c.Message, c.Reason)
		}
	}
	return ""
}
