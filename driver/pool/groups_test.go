package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// pairOptions are testOptions with a second pool, over two.
func pairOptions(o Options, two string) Options {
	o.Config.Pools = append(o.Config.Pools, PoolConfig{Name: "slow", Path: two, Backend: BackendMemory, Overcommit: 1, Line: 3})
	return o
}

func group(name string, of ...volume.ID) volume.GroupRequest {
	return volume.GroupRequest{Name: name, Volumes: of, Labels: map[string]string{"for": "a test"}}
}

// pair makes a volume in each of two pools, with content.
func pair(t *testing.T, m *Manager) {
	t.Helper()
	for id, pool := range map[string]string{"a": "fast", "b": "slow"} {
		r := request(id, gi)
		r.Pool = pool
		if _, err := m.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.slot(pool).cfg.Path, volumesDir, id, "data"), []byte("content of "+id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// agreeGroups checks that every group is whole, that no snapshot is of a group
// that is not, and that nothing is frozen.
func agreeGroups(t *testing.T, m *Manager, when string) {
	t.Helper()
	of := map[volume.ID]volume.ID{} // group by snapshot, as the groups say
	for _, s := range m.slots() {
		if s.pool == nil {
			return // what is in it may belong to what is here
		}
		if frozen, err := filepath.Glob(filepath.Join(s.cfg.Path, ".plinth/memory/*.frozen")); err != nil || len(frozen) > 0 {
			t.Errorf("%s: %q are frozen (%v)", when, frozen, err)
		}
		entries, err := s.pool.groups.all()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.broken != "" || e.State != ready {
				t.Errorf("%s: group %+v (%s)", when, e.groupRecord, e.broken)
			}
			for _, one := range e.Members {
				of[one.Snapshot] = e.ID
			}
		}
	}
	list, err := m.ListSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if of[s.ID] != s.Group {
			t.Errorf("%s: snapshot %s is of group %q, and the groups say %q", when, s.ID, s.Group, of[s.ID])
		}
		delete(of, s.ID)
	}
	if len(of) > 0 {
		t.Errorf("%s: groups without their snapshots: %v", when, of)
	}
}

// TestGroupLife: taken once and found again, each snapshot whole and seen
// alone, the start of a volume, and gone with the group only.
func TestGroupLife(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	m := open(t, pairOptions(testOptions(one), two))
	pair(t, m)
	if !m.CanGroup() {
		t.Error("it says that it cannot")
	}
	g, err := m.CreateGroup(t.Context(), group("g", "b", "a"))
	if err != nil || !g.Ready || len(g.Snapshots) != 2 || g.ID != "g" || g.Snapshots[0].Pool != "fast" || g.Snapshots[1].Pool != "slow" {
		t.Fatalf("%+v, %v", g, err)
	}
	again, err := m.CreateGroup(t.Context(), group("g", "a", "b"))
	if err != nil || again.CreatedAt != g.CreatedAt || len(again.Snapshots) != 2 || again.Snapshots[0].ID != g.Snapshots[0].ID {
		t.Errorf("%+v is not %+v (%v)", again, g, err)
	}
	if err := errors.Join(m.Delete(t.Context(), "a"), m.Delete(t.Context(), "b")); err != nil {
		t.Fatal(err)
	}
	m.Close()
	m = open(t, pairOptions(testOptions(one), two))
	agree(t, m, "opened again without the volumes")
	for i, s := range g.Snapshots {
		alone, err := m.GetSnapshot(t.Context(), s.ID)
		if err != nil || alone.Group != "g" || !alone.Ready || !alone.CreatedAt.Equal(g.CreatedAt) || alone.Labels["for"] == "" {
			t.Errorf("alone %+v, %v", alone, err)
		}
		if err := m.DeleteSnapshot(t.Context(), s.ID); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("deleted alone: %v", err)
		}
		if _, err := m.CreateSnapshot(t.Context(), snapshot(s.Name, s.Volume)); !errors.Is(err, volume.ErrExists) {
			t.Errorf("taken alone: %v", err)
		}
		v, err := m.Create(t.Context(), from(fmt.Sprint("r", i), gi, volume.Content{Snapshot: s.ID}))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(m.slot(v.Pool).cfg.Path, volumesDir, string(v.ID), "data"))
		if err != nil || string(data) != "content of "+string(s.Volume) {
			t.Errorf("%s holds %q (%v)", v.ID, data, err)
		}
	}
	for range 2 {
		if err := m.DeleteGroup(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.GetGroup(t.Context(), "g"); !errors.Is(err, volume.ErrNotFound) {
		t.Error(err)
	}
	if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left are %+v (%v)", list, err)
	}
	agree(t, m, "in the end")
}

// unable is a backend that cannot hold volumes still.
type unable struct{ backend.Opened }

// TestRefusedGroups: each refusal says why, and leaves nothing.
func TestRefusedGroups(t *testing.T) {
	o := pairOptions(testOptions(t.TempDir()), t.TempDir())
	o.Config.Pools = append(o.Config.Pools, PoolConfig{Name: "plain", Path: t.TempDir(), Backend: BackendDirectory, Overcommit: 1, Line: 4})
	o.Backends[BackendDirectory] = func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return unable{b}, err
	}
	m := open(t, o)
	pair(t, m)
	for id, pool := range map[string]string{"large": "slow", "plain": "plain"} {
		r := request(id, 5*gi)
		r.Pool = pool
		if _, err := m.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); err != nil {
		t.Fatal(err)
	}
	take(t, m, "x/a", "a")
	for _, c := range []struct {
		name string
		req  volume.GroupRequest
		want error
		says string
	}{
		{"no name", volume.GroupRequest{ID: "x", Volumes: []volume.ID{"a"}}, volume.ErrInvalid, "no name"},
		{"no volumes", group("x"), volume.ErrInvalid, "no volumes"},
		{"a bad ID", group("x", "../a"), volume.ErrInvalid, "DNS label"},
		{"one twice", group("x", "a", "a"), volume.ErrInvalid, "twice"},
		{"no volume", group("x", "b", "absent"), volume.ErrNotFound, "absent"},
		{"other volumes", group("g", "a"), volume.ErrExists, "[\"a\" \"b\"]"},
		{"another name", volume.GroupRequest{ID: "g", Name: "h", Volumes: []volume.ID{"a", "b"}}, volume.ErrExists, "name"},
		{"a snapshot's name", group("x", "a", "b"), volume.ErrExists, "x/a"},
		{"no room for one", group("y", "a", "large"), volume.ErrNoCapacity, "pool slow"},
		{"a pool that cannot", group("y", "a", "plain"), volume.ErrUnsupported, "pool plain (directory)"},
	} {
		if _, err := m.CreateGroup(t.Context(), c.req); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	busy, err := m.Hold("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateGroup(t.Context(), group("y", "a", "b")); !errors.Is(err, volume.ErrBusy) {
		t.Errorf("while one is mounted: %v", err)
	}
	busy()
	agree(t, m, "after all that")
	if _, err := m.CreateGroup(t.Context(), group("y", "a", "b")); err != nil {
		t.Errorf("a lock is left: %v", err)
	}
	o = testOptions(t.TempDir())
	o.Config.Pools[0].Shared = true
	shared := open(t, o)
	create(t, shared, "a", gi)
	if _, err := shared.CreateGroup(t.Context(), group("g", "a")); !errors.Is(err, volume.ErrUnsupported) || shared.CanGroup() {
		t.Errorf("in a shared pool: %v", err)
	}
}

// TestGroupCuts cuts what makes and removes groups, as TestCuts does.
func TestGroupCuts(t *testing.T) {
	make := func(m *Manager) error { return second(m.CreateGroup(t.Context(), group("g", "a", "b"))) }
	for _, c := range []struct {
		name   string
		before func(m *Manager) error
		do     func(m *Manager) error
		there  int
	}{
		{"make", func(*Manager) error { return nil }, make, 2},
		{"drop", make, func(m *Manager) error { return m.DeleteGroup(t.Context(), "g") }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				one, two := t.TempDir(), t.TempDir()
				m := open(t, pairOptions(testOptions(one), two))
				pair(t, m)
				if err := c.before(m); err != nil {
					t.Fatal(err)
				}
				m.Close()
				cut := &cutter{n: n}
				m = open(t, pairOptions(cutOptions(one, cut), two))
				err := c.do(m)
				m.Close()
				if cut.cut != errors.Is(err, errCut) || cut.cut == (err == nil) {
					t.Fatalf("step %d: cut is %t, and the error %v", n, cut.cut, err)
				}
				m = open(t, pairOptions(testOptions(one), two))
				agree(t, m, fmt.Sprintf("after a cut at step %d", n))
				if err := c.do(m); err != nil {
					t.Errorf("again after a cut at step %d: %v", n, err)
				}
				agree(t, m, fmt.Sprintf("again after a cut at step %d", n))
				if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != c.there {
					t.Errorf("step %d: in the end %+v, %v", n, list, err)
				}
				m.Close()
				if !cut.cut {
					return
				}
			}
		})
	}
}

// TestHalfAGroupIsAway: what a cut left of a group is kept while a part of it
// is in a pool that does not serve, and goes when that is back.
func TestHalfAGroupIsAway(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	o := pairOptions(testOptions(one), two)
	m := open(t, o)
	pair(t, m)
	if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); err != nil {
		t.Fatal(err)
	}
	e, err := m.slot("fast").pool.groups.get("g")
	if err != nil {
		t.Fatal(err)
	}
	e.State = creating // as a cut before the last step leaves it
	if err := m.slot("fast").pool.groups.put(e.groupRecord); err != nil {
		t.Fatal(err)
	}
	m.Close()
	away := two + "-away"
	if err := os.Rename(two, away); err != nil {
		t.Fatal(err)
	}
	m = open(t, o)
	if st := m.Pools(t.Context())[0]; !strings.Contains(st.Message, "group g") {
		t.Errorf("nobody says so: %+v", st)
	}
	for what, err := range map[string]error{
		"delete": m.DeleteGroup(t.Context(), "g"), "make": second(m.CreateGroup(t.Context(), group("g", "a", "b"))),
	} {
		if !errors.Is(err, volume.ErrPoolUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := m.GetGroup(t.Context(), "g"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if err := os.Rename(away, two); err != nil {
		t.Fatal(err)
	}
	m.Reopen(t.Context())
	agree(t, m, "when it is back")
	if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left are %+v (%v)", list, err)
	}
}

// TestGroupWithoutRecord: when the pool of its record is gone for good, what is
// left of a group in the others can be deleted.
func TestGroupWithoutRecord(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	o := pairOptions(testOptions(one), two)
	m := open(t, o)
	pair(t, m)
	if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); err != nil {
		t.Fatal(err)
	}
	m.Close()
	o.Config.Pools = o.Config.Pools[1:]
	m = open(t, o)
	if err := m.DeleteGroup(t.Context(), "g"); err != nil {
		t.Error(err)
	}
	agree(t, m, "in the end")
}

// stuckBackend has reflinks that end only when their volume is thawed.
type stuckBackend struct{ cutBackend }

type stuckCapture struct {
	backend.Capture
	thawed chan struct{}
}

func (b stuckBackend) Prepare(ctx context.Context, src, id volume.ID) (backend.Capture, error) {
	c, err := b.cutBackend.Prepare(ctx, src, id)
	return stuckCapture{c, make(chan struct{}, 10)}, err
}

func (c stuckCapture) Cut() error {
	<-c.thawed
	return c.Capture.Cut()
}

func (c stuckCapture) Thaw() error {
	err := c.Capture.Thaw()
	c.thawed <- struct{}{}
	return err
}

// TestFrozenTooLong: volumes go on when the cut is stuck, and there is no group.
func TestFrozenTooLong(t *testing.T) {
	o := testOptions(t.TempDir())
	o.frozen = time.Millisecond
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return stuckBackend{cutBackend{b, &cutter{n: -1}}}, err
	}}
	m := open(t, o)
	create(t, m, "a", gi)
	create(t, m, "b", gi)
	if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); !errors.Is(err, volume.ErrBusy) || !strings.Contains(err.Error(), "1ms") {
		t.Errorf("%v", err)
	}
	agree(t, m, "let go on")
}

func FuzzDecodeGroup(f *testing.F) {
	f.Add(encoded(f, groupRecord{Version: 1, State: ready, ID: "g", Name: "g", Members: []memberRecord{{"a", "v-1"}}}))
	f.Add([]byte(`{"version":9,"members":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := decodeGroup("g", data)
		if e.ID != "g" || e.reserved() != 0 {
			t.Errorf("%+v", e)
		}
		if e.broken == "" && (e.Name == "" || len(e.Members) == 0) {
			t.Errorf("%+v is whole", e)
		}
	})
}
