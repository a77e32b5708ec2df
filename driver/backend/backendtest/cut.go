package backendtest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// ErrCut is what every operation on the machine answers after a cut: the
// process is gone.
var ErrCut = errors.New("cut")

// Cut ends a process before its operation number After, counted from 0.
type Cut struct {
	After int
	done  int
	last  string
}

// Step is called before each operation on the machine.
func (c *Cut) Step(operation string) error {
	if c.done >= c.After {
		return fmt.Errorf("%w before: %s", ErrCut, operation)
	}
	c.done++
	c.last = operation
	return nil
}

func (c *Cut) hit() bool { return c.done >= c.After }

// maxCuts bounds the operations of one method: more is a loop.
const maxCuts = 100

// testCuts cuts each method that changes something before its operation 0, 1,
// 2 … until it gets through. After each cut the pool is opened again as a new
// process would: nothing is half there, and the method, repeated, succeeds.
func testCuts(t *testing.T, e *env) {
	s := e.spec("cut")
	larger := s
	larger.Size *= 2
	rooted := s
	if s.Mode == volume.Filesystem {
		rooted.Root = aRoot()
	}
	ensure := func(s volume.Spec) func(context.Context, backend.Backend) error {
		return func(ctx context.Context, b backend.Backend) error { return second(b.Ensure(ctx, s)) }
	}
	remove := func(ctx context.Context, b backend.Backend) error { return b.Remove(ctx, s.ID) }
	nothing := func(context.Context, backend.Backend) error { return nil }
	for _, c := range []struct {
		name          string
		before, do    func(context.Context, backend.Backend) error
		thereIf       func(there bool) bool // may the volume be there after a cut
		thereAfterAll bool
	}{
		{"make", nothing, ensure(rooted), func(bool) bool { return true }, true},
		{"grow", ensure(s), ensure(larger), func(there bool) bool { return there }, true},
		{"remove", ensure(s), remove, func(bool) bool { return true }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				if n > maxCuts {
					t.Fatalf("not through after %d operations", n)
				}
				e.remove(t, s.ID)
				if err := c.before(t.Context(), e.b); err != nil {
					t.Fatal(err)
				}
				if c.name == "grow" {
					e.makeRoom(t, larger)
				}
				if !e.cutOnce(t, n, c.do, c.thereIf) {
					break
				}
				if err := c.do(t.Context(), e.b); err != nil {
					t.Fatalf("repeated after a cut before operation %d: %v", n, err)
				}
				_, err := e.b.Get(t.Context(), s.ID)
				if there := err == nil; there != c.thereAfterAll {
					t.Fatalf("repeated after a cut before operation %d: there is %v (%v)", n, there, err)
				}
				e.checkInvariants(t)
			}
		})
	}
	e.remove(t, s.ID)
}

// cutOnce cuts one call and opens the pool again; false if it got through.
func (e *env) cutOnce(t *testing.T, n int, do func(context.Context, backend.Backend) error, thereIf func(bool) bool) bool {
	t.Helper()
	cut := &Cut{After: 1 << 30} // opening gets through
	b, err := e.pool.OpenCut(cut.Step)
	if err != nil {
		t.Fatal(err)
	}
	cut.done, cut.After = 0, n
	err = do(t.Context(), b)
	if cut.hit() != errors.Is(err, ErrCut) && err != nil {
		t.Fatalf("cut before operation %d (after %q): %v", n, cut.last, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	e.reopen(t)
	e.checkInvariants(t)
	_, getErr := e.b.Get(t.Context(), "cut")
	if !thereIf(getErr == nil) {
		t.Fatalf("cut before operation %d (after %q) the volume is gone: %v", n, cut.last, getErr)
	}
	return err != nil
}
