package crash

import (
	"bytes"
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
		d.flush()
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
