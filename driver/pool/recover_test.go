package pool

import (
	"errors"
	"fmt"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestCuts cuts every operation at each of its steps, opens the pool again,
// checks that records, data and reservations agree, and does the operation
// again: what was acknowledged is there, and nothing is half.
func TestCuts(t *testing.T) {
	const size, grown = 1 << 30, 2 << 30
	for _, c := range []struct {
		name    string
		before  bool // the volume is there before
		do      func(m *Manager) error
		present bool // it is there once do succeeded
		size    int64
	}{
		{"create", false, func(m *Manager) error { return second(m.Create(t.Context(), request("a", size))) }, true, size},
		{"delete", true, func(m *Manager) error { return m.Delete(t.Context(), "a") }, false, 0},
		{"expand", true, func(m *Manager) error { return second(m.Expand(t.Context(), "a", grown)) }, true, grown},
		{"modify", true, func(m *Manager) error { return second(m.Modify(t.Context(), "a", volume.Attributes{Inodes: 7})) }, true, size},
		{"expose", true, func(m *Manager) error { return m.SetExposed(t.Context(), "a", true) }, true, size},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				dir := t.TempDir()
				if c.before {
					m := open(t, testOptions(dir))
					create(t, m, "a", size)
					m.Close()
				}
				cut := &cutter{n: n}
				m := open(t, cutOptions(dir, cut))
				err := c.do(m)
				m.Close()
				if (err == nil) == cut.cut {
					t.Fatalf("step %d: cut is %t, and the error %v", n, cut.cut, err)
				}
				if cut.cut && !errors.Is(err, errCut) {
					t.Errorf("step %d: %v", n, err)
				}
				m = open(t, testOptions(dir))
				agree(t, m, fmt.Sprintf("after a cut at step %d", n))
				if err := c.do(m); err != nil {
					t.Errorf("again after a cut at step %d: %v", n, err)
				}
				agree(t, m, fmt.Sprintf("again after a cut at step %d", n))
				v, err := m.Get(t.Context(), "a")
				if (err == nil) != c.present || v.Size != c.size {
					t.Errorf("step %d: in the end %+v, %v", n, v, err)
				}
				m.Close()
				if !cut.cut {
					if n == 0 {
						t.Error("the operation has no step that can be cut")
					}
					return
				}
			}
		})
	}
}

// TestCutsWhileRecovering: recovery is cut too, and the next one finishes.
func TestCutsWhileRecovering(t *testing.T) {
	const size = 1 << 30
	for first := range 6 {
		for n := range 6 {
			dir := t.TempDir()
			m := open(t, cutOptions(dir, &cutter{n: first}))
			_ = second(m.Create(t.Context(), request("a", size)))
			m.Close()
			m = open(t, cutOptions(dir, &cutter{n: n}))
			m.Close()
			m = open(t, testOptions(dir))
			agree(t, m, fmt.Sprintf("created, cut at %d, recovered, cut at %d", first, n))
			create(t, m, "a", size)
			m.Close()
		}
	}
}

// agree checks the invariant: every record is whole and ready, it has data of
// its size, all data has a record, and the reservations are their sum.
func agree(t *testing.T, m *Manager, when string) {
	t.Helper()
	for i, s := range m.slots() {
		if s.pool != nil {
			agreePool(t, s.pool, m.Pools(t.Context())[i], when+": "+s.cfg.Name)
		}
	}
	agreeGroups(t, m, when)
}

func agreePool(t *testing.T, p *pool, st volume.PoolStatus, when string) {
	t.Helper()
	p.jobs.mu.Lock()
	if left := len(p.jobs.known); left > 0 {
		t.Errorf("%s: %d jobs are left", when, left)
	}
	p.jobs.mu.Unlock()
	entries, err := p.records.all()
	if err != nil {
		t.Fatal(err)
	}
	infos, err := p.backend.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data := map[volume.ID]int64{}
	for _, i := range infos {
		data[i.ID] = i.Size
	}
	var sum int64
	for _, e := range entries {
		if e.broken != "" || e.State != ready || e.GrowTo != 0 || data[e.Spec.ID] != e.Spec.Size {
			t.Errorf("%s: record %+v (%s), data of %d bytes", when, e.record, e.broken, data[e.Spec.ID])
		}
		delete(data, e.Spec.ID)
		sum += e.Spec.Size + e.Beside
	}
	if len(data) > 0 {
		t.Errorf("%s: data without a record: %v", when, data)
	}
	sum += agreeSnapshots(t, p, when)
	if st.Reserved != sum || st.Message != "" {
		t.Errorf("%s: reserved %d, want %d; message %q", when, st.Reserved, sum, st.Message)
	}
}

// TestInterruptedCreateResumes: a request whose time ran out leaves its volume
// to be resumed, and one that asks for something else replaces it.
func TestInterruptedCreateResumes(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
	}{{"the same", 1 << 30}, {"another size", 2 << 30}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cut := &cutter{n: 2} // after the record, in Ensure
			m := open(t, cutOptions(dir, cut))
			if _, err := m.Create(t.Context(), request("a", 1<<30)); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			if st := m.Pools(t.Context())[0]; st.Reserved != 1<<30 {
				t.Errorf("reserved %d", st.Reserved)
			}
			if _, err := m.Get(t.Context(), "a"); !errors.Is(err, volume.ErrNotFound) {
				t.Errorf("get while it is being made: %v", err)
			}
			cut.n, cut.cut = -1, false
			if v := create(t, m, "a", c.size); v.Size != c.size {
				t.Errorf("%+v", v)
			}
			agree(t, m, "resumed")
		})
	}
}

// TestDataWithoutRecord is never adopted and never removed.
func TestDataWithoutRecord(t *testing.T) {
	dir := t.TempDir()
	b, err := openMemory(t.Context(), PoolConfig{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, testOptions(dir))
	if _, err := b.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20, Mode: volume.Filesystem}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(t.Context(), request("a", 1<<20)); !errors.Is(err, volume.ErrExists) {
		t.Errorf("create over it: %v", err)
	}
	if err := m.Delete(t.Context(), "a"); err != nil {
		t.Errorf("delete: %v", err)
	}
	m.Close()
	m = open(t, testOptions(dir))
	if _, err := b.Get(t.Context(), "a"); err != nil {
		t.Errorf("it was touched: %v", err)
	}
	if st := m.Pools(t.Context())[0]; st.Message == "" {
		t.Error("nobody says so")
	}
}

// TestDeleteCutWhileInUse: a deletion that would have been refused, and was
// cut before it was, leaves the volume whole.
func TestDeleteCutWhileInUse(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	create(t, m, "a", 1<<30)
	if _, err := m.Attach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	m.Close()
	m = open(t, cutOptions(dir, &cutter{n: 1})) // after the record says deleting
	if err := m.Delete(t.Context(), "a"); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	m.Close()
	m = open(t, testOptions(dir))
	if _, err := m.Get(t.Context(), "a"); err != nil {
		t.Errorf("it is lost: %v", err)
	}
	agree(t, m, "recovered")
}
