package backendtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// testScrub writes into a volume what is then nowhere on the device below.
func testScrub(t *testing.T, e *env) {
	s, ok := e.b.(backend.Scrubber)
	if !ok {
		t.Fatal("the backend is no Scrubber")
	}
	if err := s.Scrubs(); err != nil {
		t.Fatalf("Scrubs: %v", err)
	}
	below := e.Scrubs(t, e.pool)
	e.ensure(t, e.spec("secret"))
	c := e.use(t, "secret")
	c.put(t, "scrub-me")
	requireError(t, s.Scrub(t.Context(), "../escape"), volume.ErrInvalid)
	if !e.Trees {
		requireError(t, s.Scrub(t.Context(), "secret"), volume.ErrInUse)
	}
	c.require(t, "scrub-me")
	e.done(t, "secret", c)
	e.settle(t)
	if !holds(t, below, "scrub-me") {
		t.Fatalf("what was written is not on %s, so the test cannot tell", below)
	}
	for range 2 {
		if err := s.Scrub(t.Context(), "secret"); err != nil {
			t.Fatal(err)
		}
	}
	e.requireIDs(t)
	if holds(t, below, "scrub-me") {
		t.Errorf("what was written is still on %s", below)
	}
}

// holds reports whether a payload is on a device, which starts at a sector.
func holds(t *testing.T, device, tag string) bool {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Not what this test has read before: a discard leaves that as it was.
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.BLKFLSBUF); err != nil {
		t.Fatal(err)
	}
	want, buf := payload(tag)[:len(tag)+16], make([]byte, 4<<20)
	for {
		n, err := io.ReadFull(f, buf)
		if bytes.Contains(buf[:n], want) {
			return true
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testThick: all of a thick volume is allocated, also after it has grown.
func testThick(t *testing.T, e *env) {
	s := e.spec("thick")
	for range 2 {
		if info := e.ensure(t, s); info.Allocated < s.Size {
			t.Errorf("of %d bytes %d are allocated", s.Size, info.Allocated)
		}
		s.Size *= 2
		e.makeRoom(t, s)
	}
	e.remove(t, s.ID)
}
