//go:build root

package pool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// disk is a pool over a real filesystem with a volume that holds something.
type disk struct {
	o    Options
	mode volume.Mode
}

const (
	realSize    = 64 << 20
	realContent = 8 << 20
)

func (r disk) request(name string, c volume.Content) volume.Request {
	return volume.Request{Name: name, Spec: volume.Spec{Size: realSize, Mode: r.mode}, From: c}
}

// put writes a volume's content, one byte over and over.
func (r disk) put(t *testing.T, m *Manager, id volume.ID, b byte) {
	t.Helper()
	r.open(t, m, id, func(f *os.File) error {
		_, err := f.WriteAt(bytes.Repeat([]byte{b}, realContent), 0)
		return errors.Join(err, f.Sync())
	})
}

func (r disk) require(t *testing.T, m *Manager, id volume.ID, b byte) {
	t.Helper()
	r.open(t, m, id, func(f *os.File) error {
		data := make([]byte, realContent)
		if _, err := f.ReadAt(data, 0); err != nil {
			return err
		}
		if !bytes.Equal(data, bytes.Repeat([]byte{b}, realContent)) {
			return fmt.Errorf("volume %s begins with %q, want %q", id, data[0], b)
		}
		return nil
	})
}

func (r disk) open(t *testing.T, m *Manager, id volume.ID, do func(*os.File) error) {
	t.Helper()
	src, err := m.Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	name := src.Device
	if name == "" {
		name = filepath.Join(src.Dir, "data")
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(f), f.Close(), m.Detach(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotsOnDisk takes, restores, clones and removes over real
// filesystems, and cuts each at each write of a record.
func TestSnapshotsOnDisk(t *testing.T) {
	for _, c := range []struct {
		fs, kind string
		mode     volume.Mode
	}{
		{"btrfs", BackendBtrfs, volume.Filesystem}, {"xfs", BackendImage, volume.Block}, {"ext4", BackendImage, volume.Block},
	} {
		t.Run(c.kind+"-"+c.fs, func(t *testing.T) {
			r := disk{realOptions(t, c.fs, c.kind), c.mode}
			m := open(t, r.o)
			if _, err := m.Create(t.Context(), r.request("a", volume.Content{})); err != nil {
				t.Fatal(err)
			}
			r.put(t, m, "a", 'x')
			m.Close()
			for _, op := range []struct {
				name string
				do   func(m *Manager) error
			}{
				{"take", func(m *Manager) error { return second(m.CreateSnapshot(t.Context(), snapshot("s", "a"))) }},
				{"restore", func(m *Manager) error {
					return second(m.Create(t.Context(), r.request("r", volume.Content{Snapshot: "s"})))
				}},
				{"clone", func(m *Manager) error {
					return second(m.Create(t.Context(), r.request("c", volume.Content{Volume: "a"})))
				}},
			} {
				r.cut(t, op.name, op.do)
			}
			m = open(t, r.o)
			e, err := m.slots()[0].pool.snaps.get("s")
			if err != nil || e.Held < realContent || e.Held > realSize {
				t.Errorf("a snapshot of %d bytes is promised %d (%v)", realContent, e.Held, err)
			}
			r.put(t, m, "a", 'y')
			if err := m.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			r.require(t, m, "r", 'x')
			r.require(t, m, "c", 'x')
			m.Close()
			r.cut(t, "drop", func(m *Manager) error { return m.DeleteSnapshot(t.Context(), "s") })
			m = open(t, r.o)
			r.require(t, m, "r", 'x')
			if err := errors.Join(m.Delete(t.Context(), "r"), m.Delete(t.Context(), "c")); err != nil {
				t.Fatal(err)
			}
			agree(t, m, "in the end")
			if st := m.Pools(t.Context())[0]; st.Reserved != 0 {
				t.Errorf("%d bytes are reserved for nothing", st.Reserved)
			}
		})
	}
}

// cut cuts an operation at each of its writes of a record, until one gets
// through.
func (r disk) cut(t *testing.T, what string, do func(*Manager) error) {
	t.Helper()
	for n := 0; ; n++ {
		c := &cutter{n: -1} // opening gets through
		o := r.o
		o.step = c.step
		m := open(t, o)
		c.mu.Lock()
		c.n = n
		c.mu.Unlock()
		err := do(m)
		m.Close()
		if c.cut != errors.Is(err, errCut) || !c.cut && err != nil {
			t.Fatalf("%s, step %d: cut is %t, and the error %v", what, n, c.cut, err)
		}
		m = open(t, r.o)
		agree(t, m, fmt.Sprintf("%s, cut at step %d", what, n))
		m.Close()
		if !c.cut {
			return
		}
	}
}

// TestFamiliesOnDisk: what copies share is counted once, so that taking them
// makes nothing foreign where that can be told, and promises nothing twice.
func TestFamiliesOnDisk(t *testing.T) {
	r := disk{realOptions(t, "xfs", BackendImage), volume.Block}
	m := open(t, r.o)
	p := m.slots()[0].pool
	if _, err := m.Create(t.Context(), r.request("a", volume.Content{})); err != nil {
		t.Fatal(err)
	}
	r.put(t, m, "a", 'x')
	before, err := p.survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	take(t, m, "s", "a")
	for _, name := range []string{"r1", "r2"} {
		if _, err := m.Create(t.Context(), r.request(name, volume.Content{Snapshot: "s"})); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []volume.ID{"", "a"} {
		if gone != "" {
			if err := m.Delete(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
		}
		after, err := p.survey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if grown := after.foreign - before.foreign; grown < 0 || grown > 1<<20 {
			t.Errorf("%d foreign bytes before, %d after (gone: %q)", before.foreign, after.foreign, gone)
		}
	}
}

// TestClonesOfClones: a clone is promised its size and what it shares, not all
// that its source could come to hold, however long the chain.
func TestClonesOfClones(t *testing.T) {
	r := disk{realOptions(t, "btrfs", BackendBtrfs), volume.Filesystem}
	m := open(t, r.o)
	if _, err := m.Create(t.Context(), r.request("a", volume.Content{})); err != nil {
		t.Fatal(err)
	}
	r.put(t, m, "a", 'x')
	const metadata = 1 << 20 // at most, for each
	for n, name := range []string{"b", "c", "d"} {
		src := volume.ID([]string{"a", "b", "c"}[n])
		if _, err := m.Create(t.Context(), r.request(name, volume.Content{Volume: src})); err != nil {
			t.Fatal(err)
		}
		sum, volumes, err := m.slots()[0].pool.promised()
		if most := int64(volumes)*(realSize+realContent+metadata) - realContent; err != nil || sum > most {
			t.Errorf("%d volumes are promised %d bytes, want at most %d (%v)", volumes, sum, most, err)
		}
		r.require(t, m, volume.ID(name), 'x')
	}
}

// TestAttachedWithoutReflinks: an image on ext4 is not copied while it is
// attached; whoever asks is told so at once, and nothing is left.
func TestAttachedWithoutReflinks(t *testing.T) {
	r := disk{realOptions(t, "ext4", BackendImage), volume.Block}
	m := open(t, r.o)
	if _, err := m.Create(t.Context(), r.request("a", volume.Content{})); err != nil {
		t.Fatal(err)
	}
	r.open(t, m, "a", func(*os.File) error {
		for what, err := range map[string]error{
			"snapshot": second(m.CreateSnapshot(t.Context(), snapshot("s", "a"))),
			"clone":    second(m.Create(t.Context(), r.request("c", volume.Content{Volume: "a"}))),
		} {
			if !errors.Is(err, volume.ErrInUse) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	})
	agree(t, m, "refused")
	take(t, m, "s", "a")
	agree(t, m, "taken when idle")
}
