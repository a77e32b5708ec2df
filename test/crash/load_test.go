//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// load is the workers on one node.
type load struct {
	node      *node
	workers   []*worker
	snapshots bool // the driver serves them
	enforced  bool // the pool limits volumes
	atFirst   int64
}

// workersPerPool ask at the same time.
const workersPerPool = 3

// newLoad asks a node that answers what it can do, and makes the workers.
func newLoad(ctx context.Context, n *node, j journal, seed uint64, kinds []kindOfVolume, enforced bool) (*load, error) {
	l := &load{node: n, enforced: enforced}
	caps, err := n.csi.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return nil, err
	}
	clones := false
	for _, c := range caps.Capabilities {
		switch c.GetRpc().GetType() {
		case csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT:
			l.snapshots = true
		case csi.ControllerServiceCapability_RPC_CLONE_VOLUME:
			clones = true
		}
	}
	for i := range workersPerPool {
		l.workers = append(l.workers, &worker{
			number: i, node: n, journal: j, model: newModel(), kinds: kinds, snapshots: l.snapshots, clones: clones,
			rand: rand.New(rand.NewPCG(seed, uint64(i))),
		})
	}
	return l, nil
}

// warmUp makes and deletes one volume of each kind, for what a filesystem
// takes for itself the first time, and notes what can be provisioned.
func (l *load) warmUp(ctx context.Context) error {
	w := l.workers[0]
	for _, k := range w.kinds {
		id := w.id("warm")
		if err := w.do(ctx, op{Kind: create, ID: id, Size: k.size, Block: k.block, FSType: k.fsType}); err != nil {
			return err
		}
		if err := errors.Join(w.lookInto(ctx, id), w.drop(ctx, id)); err != nil {
			return err
		}
	}
	var err error
	l.atFirst, err = l.node.csi.capacity(ctx)
	return err
}

// work has all workers at work until the process is cut.
func (l *load) work(ctx context.Context) error {
	errs := make([]error, len(l.workers))
	var all sync.WaitGroup
	for i, w := range l.workers {
		all.Go(func() { errs[i] = w.run(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// tally counts what was acknowledged.
type tally struct{ calls, snapshots, copies int }

func (t *tally) count(e entry) {
	if e.Phase != done || e.Op.Kind == reboot {
		return
	}
	t.calls++
	switch {
	case e.Op.Kind == snapshot:
		t.snapshots++
	case e.Op.Kind == create && e.Op.From != "":
		t.copies++
	}
}

func (t *tally) String() string {
	return fmt.Sprintf("%d calls acknowledged, of them %d snapshots and %d copies", t.calls, t.snapshots, t.copies)
}

// memory is a journal for cuts that the test itself survives.
type memory struct {
	mu           sync.Mutex
	acknowledged tally
	last         []entry
}

// keptEntries are shown when something is lost.
const keptEntries = 100

func (m *memory) record(e entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acknowledged.count(e)
	m.last = append(m.last, e)
	m.last = m.last[max(0, len(m.last)-keptEntries):]
	return nil
}

// mark notes a cut.
func (m *memory) mark() { _ = m.record(entry{Phase: "cut"}) }

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acknowledged.String()
}

// tail is the end of the journal, for a failure.
func (m *memory) tail() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out strings.Builder
	for _, e := range m.last {
		fmt.Fprintf(&out, "%-7s %s %s %s slot %d, %d bytes, block %t, %s\n", e.Phase, e.Op.Kind, e.Op.ID, e.Op.From, e.Op.Slot, e.Op.Size, e.Op.Block, e.Op.FSType)
	}
	return out.String()
}
