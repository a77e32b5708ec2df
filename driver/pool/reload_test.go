package pool

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// reload makes the manager read a pools file with the lines given, in which
// {a}, {b} and {c} are directories.
func reload(t *testing.T, m *Manager, dirs map[string]string, lines ...string) map[string]volume.PoolStatus {
	t.Helper()
	text := "pools:\n"
	for _, l := range lines {
		for name, dir := range dirs {
			l = strings.ReplaceAll(l, "{"+name+"}", dir)
		}
		if !strings.Contains(l, "backend:") {
			l = "backend: memory, " + l
		}
		text += "- {requireMount: false, " + l + "}\n"
	}
	cfg, err := ParseConfig([]byte(text))
	if err != nil {
		m.ReloadFailed(err)
	} else {
		m.Reload(t.Context(), cfg)
	}
	m.closing.Wait() // what was let go has no operations here
	m.Reopen(t.Context())
	out := map[string]volume.PoolStatus{}
	for _, p := range m.Pools(t.Context()) {
		out[p.Name] = p
	}
	return out
}

// TestReload: each case begins with pool a, which has a volume, and the empty
// pool b, and says what is shown after the file has changed to lines. Then the
// file is as it was, and so is everything.
func TestReload(t *testing.T) {
	first := []string{"name: a, path: {a}", "name: b, path: {b}"}
	type shown struct {
		name   string
		state  volume.PoolState
		reason string
		words  []string // of the message
	}
	ok := func(name string) shown { return shown{name: name, state: volume.PoolReady} }
	bad := func(name, reason string, words ...string) shown {
		return shown{name, volume.PoolUnavailable, reason, words}
	}
	for _, c := range []struct {
		name  string
		lines []string
		want  []shown
	}{
		{"the same", first, []shown{ok("a"), ok("b")}},
		{"another order", []string{first[1], first[0]}, []shown{ok("a"), ok("b")}},
		{"one more", append(first[:2:2], "name: c, path: {c}"), []shown{ok("a"), ok("b"), ok("c")}},
		{"an empty one less", first[:1], []shown{ok("a")}},
		{"one with volumes less", first[1:], []shown{bad("a", ReasonRemoved, "1 volumes", "put it back"), ok("b")}},
		{"none", nil, []shown{bad("a", ReasonRemoved, "1 volumes")}},
		{"path of one with volumes", []string{"name: a, path: {c}", first[1]}, []shown{ok("a"), ok("b"), bad("a (line 2)", ReasonConfig, "line 2", "path was", "1 volumes")}},
		{"path of an empty one", []string{first[0], "name: b, path: {c}"}, []shown{ok("a"), ok("b")}},
		{"backend of one with volumes", []string{"name: a, path: {a}, backend: image", first[1]}, []shown{ok("a"), ok("b"), bad("a (line 2)", ReasonConfig, "backend was memory and is image")}},
		{"shared with volumes", []string{first[1], "name: a, path: {a}, shared: true"}, []shown{ok("a"), ok("b"), bad("a (line 3)", ReasonConfig, "line 3", "shared was false and is true", "1 volumes")}},
		{"the place of one that stays", []string{"name: c, path: {a}", "name: a, path: {c}"}, []shown{ok("a"), bad("a (line 3)", ReasonConfig, "path was"), bad("c", ReasonOverlap, "overlap")}},
		{"an entry that is wrong", []string{first[1], "name: a, path: {a}, reserve: much"}, []shown{ok("a"), ok("b"), bad("a (line 3)", ReasonConfig, "line 3", "much", "as it was")}},
		{"a new entry that is wrong", append(first[:2:2], "name: c, path: {c}, overcommit: 0"), []shown{ok("a"), ok("b"), bad("c", ReasonConfig, "line 4", "overcommit")}},
		{"no pools file", []string{"}\n  : ["}, []shown{ok("a"), ok("b"), bad(fileName, ReasonConfig, "line 2", "as they were")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dirs := map[string]string{"a": t.TempDir(), "b": t.TempDir(), "c": t.TempDir()}
			o := testOptions("")
			o.Config = Config{}
			m := open(t, o)
			check := func(got map[string]volume.PoolStatus, want []shown) {
				t.Helper()
				if len(got) != len(want) {
					t.Errorf("shown are %v", got)
				}
				for _, w := range want {
					p := got[w.name]
					if p.State != w.state || p.Reason != w.reason {
						t.Errorf("pool %s: %q %q: %s", w.name, p.State, p.Reason, p.Message)
					}
					for _, word := range w.words {
						if !strings.Contains(p.Message, word) {
							t.Errorf("the message about %s lacks %q: %s", w.name, word, p.Message)
						}
					}
				}
			}
			begin := reload(t, m, dirs, first...)
			check(begin, []shown{ok("a"), ok("b")})
			r := request("v", 1<<20)
			r.Pool = "a"
			if _, err := m.Create(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			check(reload(t, m, dirs, c.lines...), c.want)
			_, err := m.Get(t.Context(), "v")
			if served := m.slot("a") != nil; served != (err == nil) || err != nil && !errors.Is(err, volume.ErrPoolUnavailable) {
				t.Errorf("the volume, with its pool in the file %t: %v", served, err)
			}
			if _, err := m.Get(t.Context(), "other"); m.slot("a") != nil && len(c.want) == 2 && !errors.Is(err, volume.ErrNotFound) {
				t.Errorf("a volume that is nowhere: %v", err)
			}
			end := reload(t, m, dirs, first...)
			check(end, []shown{ok("a"), ok("b")})
			if _, err := m.Get(t.Context(), "v"); err != nil || end["a"].UUID != begin["a"].UUID {
				t.Errorf("pool a was %s and is %s; %v", begin["a"].UUID, end["a"].UUID, err)
			}
		})
	}
}

// TestReloadAtOnce: what may change while a pool serves does, and operations
// under way go on.
func TestReloadAtOnce(t *testing.T) {
	dirs := map[string]string{"a": t.TempDir()}
	o := testOptions("")
	o.Config = Config{}
	m := open(t, o)
	reload(t, m, dirs, "name: a, path: {a}")
	p, release, err := m.slots()[0].use()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, c := range []struct {
		keys string
		want int64
	}{
		{"reserve: 1Gi", testCapacity - 1<<30}, {"reserve: 50%", testCapacity / 2},
		{"overcommit: 3", 3 * testCapacity}, {"reserve: 1Gi, overcommit: 2", 2 * (testCapacity - 1<<30)},
	} {
		got := reload(t, m, dirs, "name: a, path: {a}, "+c.keys)["a"].Available
		if got/1e6 != c.want/1e6 { // a directory takes a block
			t.Errorf("%s: %d bytes available, want %d", c.keys, got, c.want)
		}
	}
	if m.slots()[0].pool != p {
		t.Error("the pool was opened anew")
	}
}

// TestReloadMount: a pool that has to be a mount point from now on and is none
// stops serving, and serves again when it need not be.
func TestReloadMount(t *testing.T) {
	o := testOptions(t.TempDir())
	m := open(t, o)
	cfg := o.Config
	cfg.Pools = []PoolConfig{o.Config.Pools[0]}
	cfg.Pools[0].RequireMount = true
	m.Reload(t.Context(), cfg)
	if st := m.Pools(t.Context())[0]; st.Reason != ReasonNotMounted || st.UUID == "" {
		t.Errorf("%s: %s", st.Reason, st.Message)
	}
	m.closing.Wait()
	m.Reload(t.Context(), o.Config)
	if st := m.Pools(t.Context())[0]; st.State != volume.PoolReady {
		t.Errorf("%s: %s", st.Reason, st.Message)
	}
}

// TestReloadUnderLoad: volumes are made and deleted while the file changes all
// the time; nothing is lost and nothing else fails than what was let go.
func TestReloadUnderLoad(t *testing.T) {
	o := testOptions("")
	o.Config = Config{}
	m := open(t, o)
	cfgs := []Config{{}, {}}
	for i := range 3 {
		pool := PoolConfig{Name: fmt.Sprint("p", i), Path: t.TempDir(), Backend: BackendMemory, Overcommit: 1, Line: i + 1}
		cfgs[0].Pools = append(cfgs[0].Pools, pool)
		if i != 1 {
			pool.Overcommit = 2
			cfgs[1].Pools = append(cfgs[1].Pools, pool)
		}
	}
	m.Reload(t.Context(), cfgs[0])
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := range 30 {
				r := request(fmt.Sprintf("v-%d-%d", i, n), 1<<20)
				r.Pool = fmt.Sprint("p", i)
				_, err := m.Create(t.Context(), r)
				if err != nil && (i != 1 || !errors.Is(err, volume.ErrPoolUnavailable) && !errors.Is(err, volume.ErrInvalid)) {
					t.Errorf("%s: %v", r.Name, err)
				}
			}
		})
	}
	for i := range 20 {
		m.Reload(t.Context(), cfgs[(i+1)%2])
	}
	wg.Wait()
	m.Reload(t.Context(), cfgs[0])
	m.closing.Wait()
	m.Reopen(t.Context())
	for _, st := range m.Pools(t.Context()) {
		if st.State != volume.PoolReady || st.Message != "" {
			t.Errorf("pool %s: %s %s: %s", st.Name, st.State, st.Reason, st.Message)
		}
		if st.Name != "p1" && st.Volumes != 30 {
			t.Errorf("pool %s has %d volumes", st.Name, st.Volumes)
		}
	}
}
