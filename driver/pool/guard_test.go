package pool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestAnotherDisk takes the pool's directory away under a manager and under a
// new one that knows its UUID: nothing is served, nothing is written into what
// is there instead, and it all comes back with the disk.
func TestAnotherDisk(t *testing.T) {
	for _, c := range []struct {
		name    string
		instead func(t *testing.T, path string)
		reason  string // of the manager that had it open
		anew    string // of one that opens it and knows the UUID
	}{
		{"nothing", func(*testing.T, string) {}, ReasonMissing, ReasonMissing},
		{"an empty directory", func(t *testing.T, path string) { mkdir(t, path) }, ReasonNoMarker, ReasonNoMarker},
		{"another pool", func(t *testing.T, path string) {
			mkdir(t, path)
			o := testOptions(path)
			m := open(t, o)
			m.Close()
		}, ReasonForeign, ReasonForeign},
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, ReasonMissing, ReasonNotDir},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			path, away := filepath.Join(base, "pool"), filepath.Join(base, "away")
			mkdir(t, path)
			m := open(t, testOptions(path))
			create(t, m, "a", 1<<30)
			uuid := m.Pools(t.Context())[0].UUID
			move(t, path, away)
			c.instead(t, path)
			before := listing(t, path)

			refuses(t, m, c.reason)
			o := testOptions(path)
			o.Known = map[string]string{"fast": uuid}
			fresh := open(t, o)
			refuses(t, fresh, c.anew)
			m.Reopen(t.Context())
			refuses(t, m, c.anew)
			if after := listing(t, path); after != before {
				t.Errorf("what is there instead was written to:\n%s\nwas\n%s", after, before)
			}

			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			move(t, away, path)
			m.Close() // or it holds the lock when it comes back
			fresh.Reopen(t.Context())
			if v, err := fresh.Get(t.Context(), "a"); err != nil {
				t.Errorf("back again: %+v, %v; %+v", v, err, fresh.Pools(t.Context()))
			}
		})
	}
}

// refuses checks that a manager's only pool does not serve, for a reason.
func refuses(t *testing.T, m *Manager, reason string) {
	t.Helper()
	st := m.Pools(t.Context())[0]
	if st.State != volume.PoolUnavailable || st.Reason != reason || st.Message == "" {
		t.Errorf("status %+v, want %s", st, reason)
	}
	in := request("b", 1<<30)
	in.Pool = "fast"
	for what, err := range map[string]error{
		"create":        second(m.Create(t.Context(), in)),
		"create in any": second(m.Create(t.Context(), request("b", 1<<30))),
		"get":           second(m.Get(t.Context(), "a")),
		"delete":        m.Delete(t.Context(), "a"),
		"delete in":     m.DeleteIn(t.Context(), "fast", "a"),
		"expand":        second(m.Expand(t.Context(), "a", 2<<30)),
		"attach":        second(m.Attach(t.Context(), "a")),
	} {
		if !errors.Is(err, volume.ErrPoolUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMarkerDecides(t *testing.T) {
	cfg := PoolConfig{Name: "fast", Path: "/mnt", Backend: BackendAuto}
	image := cfg
	image.Backend = BackendImage
	m := marker{Version: 1, UUID: "u1", Name: "fast", Backend: BackendBtrfs}
	renamed := m
	renamed.Name = "slow"
	for _, c := range []struct {
		name   string
		cfg    PoolConfig
		m      marker
		found  bool
		known  string
		fresh  bool
		reason string
	}{
		{"new disk", cfg, marker{}, false, "", true, ""},
		{"known disk", cfg, m, true, "u1", false, ""},
		{"disk of an earlier life", cfg, m, true, "", false, ""},
		{"lost marker", cfg, marker{}, false, "u1", false, ReasonNoMarker},
		{"other disk", cfg, m, true, "u2", false, ReasonForeign},
		{"other name", cfg, renamed, true, "", false, ReasonForeign},
		{"other backend", image, m, true, "u1", false, ReasonConfig},
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh, fault := decide(c.cfg, c.m, c.found, c.known)
			if fresh != c.fresh || (fault == nil) != (c.reason == "") || fault != nil && fault.Reason != c.reason {
				t.Errorf("fresh %t, %v", fresh, fault)
			}
		})
	}
}

func TestOwnMount(t *testing.T) {
	dir, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		point, root string
		isPoint     bool
		fsType      string
		want        bool
	}{
		{"a disk", "/mnt/fast", "/", true, "xfs", true},
		{"no mount", "/mnt", "/", false, "xfs", false},
		{"in a container, a disk on the host", "/mnt/fast", "/", true, "ext4", true},
		{"in a container, a plain directory of the root disk", "/mnt/fast", "/mnt/fast", true, "ext4", false},
		{"in a container, a plain directory of the disk at /mnt", "/mnt/fast", "/fast", true, "ext4", false},
		{"a bind from elsewhere", "/mnt/fast", "/export/a", true, "ext4", true},
		{"a name that only ends alike", "/mnt/fast", "/very-fast", true, "ext4", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mount.Pool{Mount: mount.Mount{Point: c.point, Root: c.root, FSType: c.fsType}, IsMountPoint: c.isPoint}
			if got := ownMount(m, dir); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

// TestPathsThatAreNoPools: each is refused with a reason, and the others serve.
func TestPathsThatAreNoPools(t *testing.T) {
	base := t.TempDir()
	good, file, link := filepath.Join(base, "good"), filepath.Join(base, "file"), filepath.Join(base, "link")
	mkdir(t, good)
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(good, link)); err != nil {
		t.Fatal(err)
	}
	pool := func(name, path string, requireMount bool) PoolConfig {
		return PoolConfig{Name: name, Path: path, Backend: BackendMemory, Overcommit: 1, RequireMount: requireMount, Line: 7}
	}
	plain := filepath.Join(base, "plain")
	mkdir(t, plain)
	o := testOptions(base)
	o.Config = Config{
		Pools: []PoolConfig{
			pool("good", good, false), pool("missing", filepath.Join(base, "none"), false), pool("file", file, false),
			pool("link", link, false), pool("unmounted", plain, true),
		},
		Refused: []Refusal{{Name: "good", Line: 9, Reason: ReasonDuplicate, Message: "taken"}, {Line: 11, Reason: ReasonConfig, Message: "no name"}},
	}
	m := open(t, o)
	want := map[string]string{
		"good": "", "missing": ReasonMissing, "file": ReasonNotDir, "link": ReasonSymlink, "unmounted": ReasonNotMounted,
		"good (line 9)": ReasonDuplicate, "(line 11)": ReasonConfig,
	}
	for _, st := range m.Pools(t.Context()) {
		reason, ok := want[st.Name]
		if !ok || st.Reason != reason || (st.State == volume.PoolReady) != (reason == "") {
			t.Errorf("%+v", st)
		}
		if reason != "" && !strings.Contains(st.Message, "line ") {
			t.Errorf("%s: no line in %q", st.Name, st.Message)
		}
		delete(want, st.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
	if left := listing(t, plain); left != "" {
		t.Errorf("something was made where nothing is mounted: %s", left)
	}
	create(t, m, "a", 1<<30)

	// A pool whose path appears is served without a restart.
	mkdir(t, filepath.Join(base, "none"))
	if !m.Reopen(t.Context()) {
		t.Error("nothing changed")
	}
	in := request("b", 1<<30)
	in.Pool = "missing"
	if _, err := m.Create(t.Context(), in); err != nil {
		t.Error(err)
	}
}

// TestOneOwner: a second process is refused, and takes over without a restart
// when the first ends.
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	first := open(t, testOptions(dir))
	create(t, first, "a", 1<<30)
	next := open(t, testOptions(dir))
	refuses(t, next, ReasonLocked)
	changed := make(chan struct{}, 8)
	done := make(chan error, 1)
	go func() { done <- next.Watch(t.Context(), func() { changed <- struct{}{} }) }()
	first.Close()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("it was not taken over")
	}
	if _, err := next.Get(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// listing names all that is below a path.
func listing(t *testing.T, path string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if name != path {
			out = append(out, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}
