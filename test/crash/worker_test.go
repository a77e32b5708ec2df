//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// errLost is what this test is for: something acknowledged is not there.
	errLost = errors.New("lost")
	// errCut ends a worker whose process is no more.
	errCut = errors.New("cut")
)

// busyFor bounds how long a volume may be busy with what nobody asked for now.
const busyFor = time.Minute

// kindOfVolume is what a pool can make; sizes in bytes.
type kindOfVolume struct {
	block  bool
	fsType string
	size   int64
}

// worker asks for one thing after the other about volumes of its own.
type worker struct {
	number  int
	node    *node
	journal journal
	model   *model
	rand    *rand.Rand
	kinds   []kindOfVolume
	next    int // number of the next volume or snapshot
	// copies says what the pool can copy.
	snapshots, clones bool
	scribbles         bool // beside what it writes durably, so that a cut finds writes that are not
}

func (w *worker) staging(id string) string { return filepath.Join(w.node.dir, "use", id, "staging") }
func (w *worker) target(id string) string  { return filepath.Join(w.node.dir, "use", id, "target") }

// do begins, does and ends one thing, each in the journal.
func (w *worker) do(ctx context.Context, o op) error {
	o.Worker = w.number
	if err := w.tell(entry{begun, o}); err != nil {
		return err
	}
	err := w.patiently(ctx, o)
	switch {
	case err == nil:
		return w.tell(entry{done, o})
	case refusal(o, err):
		return w.tell(entry{refused, o})
	case w.node.cut(err):
		return errCut
	}
	return fmt.Errorf("%s %s: %w", o.Kind, o.ID, err)
}

func (w *worker) tell(e entry) error {
	if err := w.journal.record(e); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	w.model.apply(e)
	return nil
}

// patiently asks again while the volume is busy with what a cut left.
func (w *worker) patiently(ctx context.Context, o op) error {
	ctx, cancel := context.WithTimeout(ctx, busyFor)
	defer cancel()
	for {
		err := w.call(ctx, o)
		if status.Code(err) != codes.Aborted {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// refusal tells an answer that is allowed from a fault.
func refusal(o op, err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return o.Kind == create || o.Kind == expand
	case codes.FailedPrecondition: // bytes are copied only of what is not in use
		return o.Kind == snapshot || o.Kind == create && o.Clone
	}
	return false
}

// run works until the process is cut or the context ends, which is no error.
func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.step(ctx); errors.Is(err, errCut) {
			return nil
		} else if err != nil {
			return fmt.Errorf("worker %d: %w", w.number, err)
		}
	}
	return nil
}

// step does one thing: first what was cut, then anything.
func (w *worker) step(ctx context.Context) error {
	if found, err := w.resume(ctx); found || err != nil {
		return err
	}
	if len(w.model.volumes) == 0 || len(w.model.volumes) < maxVolumes && w.rand.IntN(4) == 0 {
		return w.do(ctx, w.newVolume())
	}
	if ids := w.model.snapshotIDs(); len(ids) > 0 && w.rand.IntN(6) == 0 {
		return w.useSnapshot(ctx, ids[w.rand.IntN(len(ids))])
	}
	ids := w.model.ids()
	return w.useVolume(ctx, ids[w.rand.IntN(len(ids))])
}

func (w *worker) id(what string) string {
	w.next++
	return fmt.Sprintf("w%d-%s%d", w.number, what, w.next)
}

func (w *worker) newVolume() op {
	k := w.kinds[w.rand.IntN(len(w.kinds))]
	o := op{Kind: create, ID: w.id("v"), Size: k.size, Block: k.block, FSType: k.fsType}
	if ids := w.model.ids(); w.clones && len(ids) > 0 && w.rand.IntN(3) == 0 {
		return copied(o, ids[w.rand.IntN(len(ids))], true, w.model)
	}
	if ids := w.model.snapshotIDs(); len(ids) > 0 && w.rand.IntN(3) == 0 {
		return copied(o, ids[w.rand.IntN(len(ids))], false, w.model)
	}
	return o
}

// copied makes a creation one of a copy, which is like its source.
func copied(o op, from string, clone bool, m *model) op {
	o.From, o.Clone = from, clone
	s := m.source(o)
	o.Size, o.Block, o.FSType = s.size, s.made.Block, s.made.FSType
	return o
}

func (w *worker) useSnapshot(ctx context.Context, id string) error {
	if w.rand.IntN(2) == 0 || len(w.model.volumes) >= maxVolumes {
		return w.do(ctx, op{Kind: unsnapshot, ID: id})
	}
	return w.do(ctx, copied(op{Kind: create, ID: w.id("v")}, id, false, w.model))
}

func (w *worker) useVolume(ctx context.Context, id string) error {
	v := w.model.volumes[id]
	var choices []kind
	switch {
	case v.published:
		choices = []kind{write, write, write, "verify", unpublish, expand}
	case v.staged:
		choices = []kind{publish, publish, unstage, expand}
	default:
		choices = []kind{stage, stage, stage, remove, expand}
	}
	if w.snapshots && len(w.model.snapshots) < maxSnapshots {
		choices = append(choices, snapshot)
		if !v.staged { // some pools copy nothing else
			choices = append(choices, snapshot, snapshot)
		}
	}
	o := op{Kind: choices[w.rand.IntN(len(choices))], ID: id}
	switch o.Kind {
	case "verify":
		return w.verify(id)
	case write:
		o.Slot, o.Seed = w.rand.IntN(slots), w.rand.Uint64()|2 // never anything
	case expand:
		if v.size >= 2*v.made.Size {
			return nil
		}
		o.Size = v.size + 8<<20
	case snapshot:
		o.ID, o.From = w.id("s"), id
	}
	return w.do(ctx, o)
}

func (w *worker) verify(id string) error {
	if err := verifySlots(w.model.volumes[id], w.target(id)); err != nil {
		return fmt.Errorf("verify %s: %w", id, err)
	}
	return nil
}

// resume finds one thing that was cut, and asks for it again or undoes it, as
// whoever asked may do.
func (w *worker) resume(ctx context.Context) (found bool, err error) {
	for _, id := range w.model.ids() {
		if p := w.model.volumes[id].pending; p != nil {
			return true, w.do(ctx, w.again(*p, map[kind]kind{create: remove, stage: unstage, publish: unpublish}))
		}
	}
	for _, id := range w.model.snapshotIDs() {
		if p := w.model.snapshots[id].pending; p != nil {
			return true, w.do(ctx, w.again(*p, map[kind]kind{snapshot: unsnapshot}))
		}
	}
	return false, nil
}

func (w *worker) again(o op, undo map[kind]kind) op {
	if u, ok := undo[o.Kind]; ok && w.rand.IntN(3) == 0 {
		return op{Kind: u, ID: o.ID}
	}
	return o
}
