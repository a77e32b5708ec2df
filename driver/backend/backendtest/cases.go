package backendtest

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

func testEnsureIdempotent(t *testing.T, e *env) {
	s := e.spec("one")
	first := e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	e.done(t, s.ID, c)
	second := e.ensure(t, s)
	if first.Size != second.Size {
		t.Errorf("size was %d, is %d after asking again", first.Size, second.Size)
	}
	e.requireIDs(t, s.ID)
	c = e.use(t, s.ID)
	c.require(t, "before")
	e.done(t, s.ID, c)
}

func testEnsureRefuses(t *testing.T, e *env) {
	for _, s := range e.Unsupported {
		s.ID = "refused"
		_, err := e.b.Ensure(t.Context(), s)
		requireError(t, err, volume.ErrUnsupported)
	}
	outOfRange := append([]volume.Spec{e.Spec, e.Spec}, e.OutOfRange...)
	outOfRange[0].Size, outOfRange[1].Size = 0, -1
	for _, s := range outOfRange {
		s.ID = "refused"
		_, err := e.b.Ensure(t.Context(), s)
		requireError(t, err, volume.ErrOutOfRange)
	}
	for _, id := range []volume.ID{"", ".", "..", "../escape", "a/b", "UPPER", volume.ID(strings.Repeat("a", 64))} {
		_, err := e.b.Ensure(t.Context(), e.spec(id))
		requireError(t, err, volume.ErrInvalid)
		requireError(t, e.b.Remove(t.Context(), id), volume.ErrInvalid)
		_, err = e.b.Get(t.Context(), id)
		requireError(t, err, volume.ErrInvalid)
		_, err = e.b.Attach(t.Context(), id)
		requireError(t, err, volume.ErrInvalid)
		requireError(t, e.b.Detach(t.Context(), id), volume.ErrInvalid)
		_, err = e.b.Usage(t.Context(), id, "")
		requireError(t, err, volume.ErrInvalid)
	}
	e.requireIDs(t)
}

func testGrow(t *testing.T, e *env) {
	s := e.spec("grows")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	e.done(t, s.ID, c)

	larger := s
	larger.Size += s.Size / 2
	if e.Grow != nil {
		_, err := e.b.Ensure(t.Context(), larger)
		requireError(t, err, volume.ErrOutOfRange)
	}
	e.grow(t, larger)
	c = e.use(t, s.ID)
	c.require(t, "before")
	e.done(t, s.ID, c)
	e.reopen(t)
	info, err := e.b.Get(t.Context(), s.ID)
	if err != nil || (e.Enforced && info.Size != larger.Size) {
		t.Fatalf("after growing and reopening: %+v, %v", info, err)
	}
	if e.Enforced {
		_, err = e.b.Ensure(t.Context(), s)
		requireError(t, err, volume.ErrOutOfRange)
	}
	e.remove(t, s.ID)
}

// testGrowInUse grows a volume under its consumer: the larger limit holds at
// once for a directory, and for a device its new size is seen.
func testGrowInUse(t *testing.T, e *env) {
	s := e.spec("busy")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	s.Size *= 2
	e.grow(t, s)
	c.require(t, "before")
	if c.device != "" && e.Enforced {
		f, err := os.Open(c.device)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if size, err := f.Seek(0, 2); err != nil || size != s.Size {
			t.Errorf("the device has %d bytes (%v) after growing to %d", size, err, s.Size)
		}
		f.Close()
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

func testLimit(t *testing.T, e *env) {
	s := e.spec("full")
	e.ensure(t, s)
	before := e.free(t)
	c := e.use(t, s.ID)
	n, err := c.fill(4 * s.Size)
	if !isFull(err) {
		t.Errorf("writing past the limit gives %v after %d bytes of %d", err, n, s.Size)
	}
	if n > s.Size {
		t.Errorf("%d bytes went into a volume of %d", n, s.Size)
	}
	if n < s.Size/2 {
		t.Errorf("only %d bytes went into a volume of %d", n, s.Size)
	}
	if held := before - e.free(t); held > s.Size+e.Overhead {
		t.Errorf("a volume of %d bytes holds %d of the pool", s.Size, held)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

// testGrowRaises fills a volume, grows it, and finds the new bytes there.
func testGrowRaises(t *testing.T, e *env) {
	s := e.spec("raised")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	if _, err := c.fill(4 * s.Size); !isFull(err) {
		t.Fatalf("filling it: %v", err)
	}
	s.Size *= 2
	e.ensure(t, s)
	want := s.Size - e.Overhead - payloadSize
	if n, err := c.fill(want); err != nil {
		t.Errorf("after growing to %d bytes only %d went in: %v", s.Size, n, err)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

// settle makes the pool's filesystem write what it has, so that what it then
// counts is what is there.
func (e *env) settle(t *testing.T) {
	t.Helper()
	dir, err := os.Open(e.pool.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
}

func (e *env) free(t *testing.T) int64 {
	t.Helper()
	e.settle(t)
	c, err := e.b.Capacity(t.Context())
	if err != nil {
		t.Fatalf("Capacity: %v", err)
	}
	if c.Enforced != e.Enforced && e.Enforced {
		t.Errorf("Capacity says enforced: %v", c.Enforced)
	}
	if c.Free < 0 || c.Total <= 0 || c.Free > c.Total {
		t.Errorf("Capacity says %+v", c)
	}
	return c.Free
}

func testRemoveFrees(t *testing.T, e *env) {
	s := e.spec("freed")
	e.ensure(t, e.spec("stays")) // first use of a pool may cost it some bytes
	before := e.free(t)
	e.ensure(t, s)
	c := e.use(t, s.ID)
	want := s.Size / 2
	if n, err := c.fill(want); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	held := before - e.free(t)
	if held < want-e.Overhead {
		t.Errorf("%d bytes written, but only %d fewer are free", want, held)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
	capacity, err := e.b.Capacity(t.Context()) // at once, with nothing written in between
	if err != nil {
		t.Fatal(err)
	}
	if lost := before - capacity.Free; lost > e.Overhead {
		t.Errorf("%d bytes are not back after Remove", lost)
	}
	e.requireIDs(t, "stays")
	e.remove(t, "stays")
}

func testRemoveInUse(t *testing.T, e *env) {
	s := e.spec("used")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.put(t, "before")
	release := func() {}
	if e.Trees { // nothing is attached about a directory: what counts is a mount of it
		release = bindElsewhere(t, c.dir)
	}
	requireError(t, e.b.Remove(t.Context(), s.ID), volume.ErrInUse)
	e.requireIDs(t, s.ID)
	c.require(t, "before")
	release()
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
	e.requireIDs(t)
}

func testAbsent(t *testing.T, e *env) {
	_, err := e.b.Get(t.Context(), "absent")
	requireError(t, err, volume.ErrNotFound)
	_, err = e.b.Attach(t.Context(), "absent")
	requireError(t, err, volume.ErrNotFound)
	_, err = e.b.Usage(t.Context(), "absent", "")
	requireError(t, err, volume.ErrNotFound)
	requireError(t, e.b.Remove(t.Context(), "absent"), nil)
	requireError(t, e.b.Detach(t.Context(), "absent"), nil)

	s := e.spec("twice")
	e.ensure(t, s)
	e.remove(t, s.ID)
	e.remove(t, s.ID)
	_, err = e.b.Get(t.Context(), s.ID)
	requireError(t, err, volume.ErrNotFound)
	e.ensure(t, s) // the name is free again
	e.remove(t, s.ID)
}

func testReopen(t *testing.T, e *env) {
	for _, id := range []volume.ID{"a", "b", "0"} {
		e.ensure(t, e.spec(id))
	}
	c := e.use(t, "a")
	c.put(t, "before")
	e.done(t, "a", c)
	e.reopen(t)
	e.requireIDs(t, "0", "a", "b")
	info, err := e.b.Get(t.Context(), "a")
	if err != nil || (e.Enforced && info.Size != e.Spec.Size) {
		t.Errorf("after reopening: %+v, %v", info, err)
	}
	c = e.use(t, "a")
	c.require(t, "before")
	e.done(t, "a", c)
	for _, id := range []volume.ID{"a", "b", "0"} {
		e.remove(t, id)
	}
}

func testConcurrent(t *testing.T, e *env) {
	ids := []volume.ID{"c0", "c1", "c2", "c3"}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			for range 2 {
				if _, err := e.b.Ensure(t.Context(), e.spec(id)); err != nil {
					t.Errorf("Ensure %s: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	e.requireIDs(t, ids...)
	for i, id := range ids {
		wg.Go(func() {
			if i%2 == 0 {
				if err := e.b.Remove(t.Context(), id); err != nil {
					t.Errorf("Remove %s: %v", id, err)
				}
			} else if _, err := e.b.List(t.Context()); err != nil {
				t.Errorf("List beside Remove: %v", err)
			}
		})
	}
	wg.Wait()
	e.requireIDs(t, "c1", "c3")
}

func testUsage(t *testing.T, e *env) {
	a, b := e.spec("a"), e.spec("b")
	e.ensure(t, a)
	e.ensure(t, b)
	ca, cb := e.use(t, a.ID), e.use(t, b.ID)
	usage := func(id volume.ID, c *consumer) volume.Usage {
		mountedAt := ""
		if c.dir != "" && c.device != "" {
			mountedAt = c.dir
		}
		e.settle(t)
		u, err := e.b.Usage(t.Context(), id, mountedAt)
		if err != nil {
			t.Fatalf("Usage of %s: %v", id, err)
		}
		if e.Enforced && (u.TotalBytes <= 0 || u.TotalBytes > e.Spec.Size) {
			t.Errorf("Usage of %s, a volume of %d bytes: %+v", id, e.Spec.Size, u)
		}
		return u
	}
	beforeA, beforeB := usage(a.ID, ca), usage(b.ID, cb)
	want := e.Spec.Size / 4
	if _, err := ca.fill(want); err != nil {
		t.Fatal(err)
	}
	afterA, afterB := usage(a.ID, ca), usage(b.ID, cb)
	if e.Grow != nil && ca.dir == "" {
		want = 0 // nobody can tell what of a raw disk is used
	}
	if grown := afterA.UsedBytes - beforeA.UsedBytes; grown < want-e.Overhead || grown > want+e.Overhead {
		t.Errorf("%d bytes written, usage grew by %d", want, grown)
	}
	if grown := afterB.UsedBytes - beforeB.UsedBytes; grown != 0 {
		t.Errorf("usage of the other volume grew by %d", grown)
	}
	if beforeA.TotalInodes != 0 && ca.dir != "" && afterA.UsedInodes != beforeA.UsedInodes+1 {
		t.Errorf("one file made, inodes went from %d to %d", beforeA.UsedInodes, afterA.UsedInodes)
	}
	e.done(t, a.ID, ca)
	e.done(t, b.ID, cb)
}

func testAttach(t *testing.T, e *env) {
	s := e.spec("attached")
	e.ensure(t, s)
	first, err := e.b.Attach(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	e.reopen(t)
	second, err := e.b.Attach(t.Context(), s.ID)
	if err != nil || first != second {
		t.Errorf("Attach says %+v, after reopening %+v, %v", first, second, err)
	}
	if second.Dir != "" && filepath.Dir(second.Dir) != filepath.Join(e.pool.Dir, "volumes") {
		t.Errorf("the directory %s is not in the pool", second.Dir)
	}
	requireError(t, e.b.Detach(t.Context(), s.ID), nil)
	requireError(t, e.b.Detach(t.Context(), s.ID), nil)
	e.remove(t, s.ID)
}
