package crash

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestDisk: what was flushed stays, what was not goes with the power, in part
// if so asked.
func TestDisk(t *testing.T) {
	for _, c := range []struct {
		kept float64
		want byte // of the second write
	}{{0, 'a'}, {1, 'b'}} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		d := &disk{file: f}
		put := func(b byte, at int64) {
			if err := d.write(bytes.Repeat([]byte{b}, 2*pieceSize), at); err != nil {
				t.Fatal(err)
			}
		}
		put('a', 0)
		if err := d.flush(); err != nil {
			t.Fatal(err)
		}
		put('x', pieceSize) // of which the next is the later half
		put('b', 0)
		forgotten, err := d.cut(rand.New(rand.NewPCG(1, 1)), c.kept)
		if err != nil || c.kept == 0 && forgotten != 4 || c.kept == 1 && forgotten != 0 {
			t.Errorf("kept %v: %d forgotten, %v", c.kept, forgotten, err)
		}
		got := make([]byte, 2*pieceSize)
		if err := d.read(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{c.want}, len(got))) {
			t.Errorf("kept %v: it holds %q…, %v", c.kept, got[:8], err)
		}
	}
}

// TestFuse: the power goes with the write that the fuse is for, and nothing
// that comes later counts.
func TestFuse(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	blown := 0
	d := &disk{file: f}
	d.arm(fuse{2, func() { blown++ }})
	piece := bytes.Repeat([]byte{'a'}, pieceSize)
	for i, want := range []error{nil, errDead, errDead} {
		if err := d.write(piece, int64(i)*pieceSize); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if err := d.flush(); !errors.Is(err, errDead) || blown != 1 {
		t.Errorf("flush: %v; blown %d times", err, blown)
	}
	if forgotten, err := d.cut(rand.New(rand.NewPCG(1, 1)), 0); err != nil || forgotten != 2 {
		t.Errorf("%d forgotten, %v", forgotten, err)
	}
	if err := d.write(piece, 0); err != nil {
		t.Errorf("with power again: %v", err)
	}
}
