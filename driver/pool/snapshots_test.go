package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

const gi = 1 << 30

func snapshot(name string, of volume.ID) volume.SnapshotRequest {
	return volume.SnapshotRequest{Name: name, Volume: of, Labels: map[string]string{"for": "a test"}}
}

func take(t *testing.T, m *Manager, name string, of volume.ID) volume.Snapshot {
	t.Helper()
	s, err := m.CreateSnapshot(t.Context(), snapshot(name, of))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func from(name string, size int64, c volume.Content) volume.Request {
	r := request(name, size)
	r.From = c
	return r
}

// agreeSnapshots is agree for snapshots; it returns what they reserve.
func agreeSnapshots(t *testing.T, p *pool, when string) (sum int64) {
	t.Helper()
	s, ok := p.backend.(backend.Snapshotter)
	if !ok {
		return 0
	}
	entries, err := p.snaps.all()
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.ListSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data := map[volume.ID]backend.Snapshot{}
	for _, f := range found {
		data[f.ID] = f
	}
	for _, e := range entries {
		f, there := data[e.ID]
		if e.broken != "" || e.State != ready || !there || f.Held > e.Held {
			t.Errorf("%s: record %+v (%s), data %+v", when, e.snapshotRecord, e.broken, f)
		}
		delete(data, e.ID)
		sum += e.Held
	}
	if len(data) > 0 {
		t.Errorf("%s: snapshots without a record: %v", when, data)
	}
	return sum
}

func write(t *testing.T, m *Manager, id volume.ID, text string) {
	t.Helper()
	file := filepath.Join(m.slots()[0].cfg.Path, volumesDir, string(id), "data")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, m *Manager, id volume.ID) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.slots()[0].cfg.Path, volumesDir, string(id), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSnapshotLife: taken once, found again, whole without its volume, the
// start of others, and gone when deleted.
func TestSnapshotLife(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	create(t, m, "a", gi)
	write(t, m, "a", "before")
	s := take(t, m, "s", "a")
	if !s.Ready || s.Size != gi || s.Volume != "a" || s.Pool != "fast" || s.Node != "node-1" || s.Mode != volume.Filesystem || s.Labels["for"] == "" {
		t.Errorf("%+v", s)
	}
	write(t, m, "a", "after")
	again := take(t, m, "s", "a")
	if again.CreatedAt != s.CreatedAt || again.ID != s.ID {
		t.Errorf("%+v is not %+v", again, s)
	}
	if st := m.Pools(t.Context())[0]; st.Reserved <= gi || st.Reserved > gi+1<<20 {
		t.Errorf("a snapshot of a few bytes beside a volume of a gibibyte reserves %d", st.Reserved-gi)
	}
	create(t, m, "b", gi)
	if _, err := m.CreateSnapshot(t.Context(), snapshot("s", "b")); !errors.Is(err, volume.ErrExists) {
		t.Errorf("of another volume: %v", err)
	}
	if err := errors.Join(m.Delete(t.Context(), "a"), m.Delete(t.Context(), "b")); err != nil {
		t.Fatal(err)
	}
	m.Close()
	m = open(t, testOptions(dir))
	agree(t, m, "opened again without the volume")
	v, err := m.Create(t.Context(), from("r", 2*gi, volume.Content{Snapshot: "s"}))
	if err != nil || v.Size != 2*gi || v.From.Snapshot != "s" || read(t, m, "r") != "before" {
		t.Fatalf("%+v, %v", v, err)
	}
	write(t, m, "r", "own")
	if v, err := m.Create(t.Context(), from("c", 0, volume.Content{Volume: "r"})); err != nil || v.Size != 2*gi || read(t, m, "c") != "own" {
		t.Fatalf("%+v, %v", v, err)
	}
	if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != 1 || list[0].ID != "s" {
		t.Errorf("%+v, %v", list, err)
	}
	for range 2 {
		if err := m.DeleteSnapshot(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.GetSnapshot(t.Context(), "s"); !errors.Is(err, volume.ErrNotFound) {
		t.Error(err)
	}
	if v, err := m.Create(t.Context(), from("r", 2*gi, volume.Content{Snapshot: "s"})); err != nil || v.ID != "r" {
		t.Errorf("it is there, whatever became of its source: %v", err)
	}
	agree(t, m, "in the end")
}

// TestRefusedSnapshots: each refusal says why, and leaves nothing.
func TestRefusedSnapshots(t *testing.T) {
	m := open(t, testOptions(t.TempDir()))
	create(t, m, "a", gi)
	create(t, m, "large", 5*gi)
	take(t, m, "s", "a")
	busy, err := m.Hold("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateSnapshot(t.Context(), snapshot("x", "a")); !errors.Is(err, volume.ErrBusy) {
		t.Errorf("while it is mounted: %v", err)
	}
	busy()
	for _, c := range []struct {
		name string
		err  error
		want error
		says string
	}{
		{"no name", second(m.CreateSnapshot(t.Context(), volume.SnapshotRequest{ID: "x", Volume: "a"})), volume.ErrInvalid, "no name"},
		{"a bad ID", second(m.CreateSnapshot(t.Context(), volume.SnapshotRequest{ID: "../x", Name: "x", Volume: "a"})), volume.ErrInvalid, "DNS label"},
		{"no volume", second(m.CreateSnapshot(t.Context(), snapshot("x", "absent"))), volume.ErrNotFound, "absent"},
		{"no room", second(m.CreateSnapshot(t.Context(), snapshot("x", "large"))), volume.ErrNoCapacity, "pool fast"},
		{"get", second(m.GetSnapshot(t.Context(), "x")), volume.ErrNotFound, "x"},
		{"two sources", second(m.Create(t.Context(), from("v", gi, volume.Content{Snapshot: "s", Volume: "a"}))), volume.ErrInvalid, "ask for one"},
		{"no snapshot", second(m.Create(t.Context(), from("v", gi, volume.Content{Snapshot: "a"}))), volume.ErrNotFound, "snapshot a"},
		{"no source", second(m.Create(t.Context(), from("v", gi, volume.Content{Volume: "s"}))), volume.ErrNotFound, "volume s"},
		{"too small", second(m.Create(t.Context(), from("v", gi-1, volume.Content{Snapshot: "s"}))), volume.ErrOutOfRange, fmt.Sprint(gi)},
		{"another mode", second(m.Create(t.Context(), volume.Request{Name: "v", Spec: volume.Spec{Size: gi, Mode: volume.Block}, From: volume.Content{Snapshot: "s"}})), volume.ErrUnsupported, "Block"},
		{"another filesystem", second(m.Create(t.Context(), volume.Request{Name: "v", Spec: volume.Spec{Size: gi, Mode: volume.Filesystem, FSType: "xfs"}, From: volume.Content{Snapshot: "s"}})), volume.ErrUnsupported, "xfs"},
		{"another pool", second(m.Create(t.Context(), volume.Request{Name: "v", Pool: "slow", Spec: volume.Spec{Size: gi, Mode: volume.Filesystem}, From: volume.Content{Snapshot: "s"}})), volume.ErrInvalid, "slow"},
		{"another node", second(m.Create(t.Context(), volume.Request{Name: "v", Nodes: []string{"node-2"}, Spec: volume.Spec{Size: gi, Mode: volume.Filesystem}, From: volume.Content{Volume: "a"}})), volume.ErrNoCapacity, "node-2"},
		{"another content", second(m.Create(t.Context(), from("a", gi, volume.Content{Snapshot: "s"}))), volume.ErrExists, "content"},
	} {
		if !errors.Is(c.err, c.want) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	agree(t, m, "after all that")
}

// TestSnapshotCuts cuts what makes and removes snapshots and copies, as
// TestCuts does.
func TestSnapshotCuts(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(t *testing.T, m *Manager)
		do     func(m *Manager) error
		there  func(m *Manager) error // once do succeeded
	}{
		{"take", func(*testing.T, *Manager) {},
			func(m *Manager) error { return second(m.CreateSnapshot(t.Context(), snapshot("s", "a"))) },
			func(m *Manager) error { return second(m.GetSnapshot(t.Context(), "s")) }},
		{"drop", func(t *testing.T, m *Manager) { take(t, m, "s", "a") },
			func(m *Manager) error { return m.DeleteSnapshot(t.Context(), "s") },
			func(m *Manager) error {
				if _, err := m.GetSnapshot(t.Context(), "s"); !errors.Is(err, volume.ErrNotFound) {
					return fmt.Errorf("it is there: %w", err)
				}
				return nil
			}},
		{"restore", func(t *testing.T, m *Manager) { take(t, m, "s", "a") },
			func(m *Manager) error {
				return second(m.Create(t.Context(), from("v", gi, volume.Content{Snapshot: "s"})))
			},
			func(m *Manager) error { return second(m.Get(t.Context(), "v")) }},
		{"clone", func(*testing.T, *Manager) {},
			func(m *Manager) error {
				return second(m.Create(t.Context(), from("v", gi, volume.Content{Volume: "a"})))
			},
			func(m *Manager) error { return second(m.Get(t.Context(), "v")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				dir := t.TempDir()
				m := open(t, testOptions(dir))
				create(t, m, "a", gi)
				write(t, m, "a", "content")
				c.before(t, m)
				m.Close()
				cut := &cutter{n: n}
				m = open(t, cutOptions(dir, cut))
				err := c.do(m)
				m.Close()
				if cut.cut != errors.Is(err, errCut) || cut.cut == (err == nil) {
					t.Fatalf("step %d: cut is %t, and the error %v", n, cut.cut, err)
				}
				m = open(t, testOptions(dir))
				agree(t, m, fmt.Sprintf("after a cut at step %d", n))
				if err := errors.Join(c.do(m), c.there(m)); err != nil {
					t.Errorf("again after a cut at step %d: %v", n, err)
				}
				agree(t, m, fmt.Sprintf("again after a cut at step %d", n))
				m.Close()
				if !cut.cut {
					return
				}
			}
		})
	}
}

// TestBrokenSnapshotRecord: it keeps its reservation and is left alone.
func TestBrokenSnapshotRecord(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	create(t, m, "a", gi)
	write(t, m, "a", "content")
	take(t, m, "s", "a")
	reserved := m.Pools(t.Context())[0].Reserved
	m.Close()
	file := filepath.Join(dir, snapshotRecordsDir, "s.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), `"version": 1`, `"version": 9`, 1)
	if err := os.WriteFile(file, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	m = open(t, testOptions(dir))
	for what, err := range map[string]error{
		"get": second(m.GetSnapshot(t.Context(), "s")), "delete": m.DeleteSnapshot(t.Context(), "s"),
		"take":    second(m.CreateSnapshot(t.Context(), snapshot("s", "a"))),
		"restore": second(m.Create(t.Context(), from("v", gi, volume.Content{Snapshot: "s"}))),
	} {
		if !errors.Is(err, volume.ErrPoolUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if st := m.Pools(t.Context())[0]; st.Reserved != reserved || !strings.Contains(st.Message, "version 9") {
		t.Errorf("%+v", st)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != newer {
		t.Errorf("it was touched: %v", err)
	}
}
