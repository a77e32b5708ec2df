package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

func pathRequest(name string, path volume.Path) volume.Request {
	r := request(name, 1<<20)
	r.Path, r.Labels = path, map[string]string{"namespace": "shop", "claim": name}
	return r
}

// createNamed makes a volume and names it, as an agent does.
func createNamed(t *testing.T, m *Manager, name string, path volume.Path) (string, error) {
	t.Helper()
	v, err := m.Create(t.Context(), pathRequest(name, path))
	if err != nil {
		return "", err
	}
	return m.Name(t.Context(), v.ID, "/somewhere/"+name+"/volume")
}

// TestPathTaken: a path is one volume's, and so is everything within it.
func TestPathTaken(t *testing.T) {
	for _, c := range []struct {
		first, second volume.Path
		taken         bool
	}{
		{"shop/data", "shop/data", true}, {"shop/data", "shop", true}, {"shop", "shop/data", true},
		{"shop/data", "shop/data/x/y", true}, {"shop/data", "shop/data2", false}, {"shop/a", "shop/b", false}, {"shop/a", "", false},
	} {
		t.Run(fmt.Sprintf("%s and %s", c.first, c.second), func(t *testing.T) {
			m := open(t, testOptions(t.TempDir()))
			if _, err := createNamed(t, m, "one", c.first); err != nil {
				t.Fatal(err)
			}
			_, err := createNamed(t, m, "two", c.second)
			if !c.taken {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, volume.ErrPathTaken) {
				t.Fatalf("got %v", err)
			}
			for _, word := range []string{string(c.first), "volume one (claim shop/one)", "pool fast"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			agree(t, m, "refused")
			if err := m.Delete(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			if _, err := createNamed(t, m, "two", c.second); err != nil {
				t.Errorf("after the first is gone: %v", err)
			}
		})
	}
}

// TestPathRace: of many who ask for one path at once, one gets it.
func TestPathRace(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %t", shared), func(t *testing.T) {
			o := testOptions(t.TempDir())
			o.Config.Pools[0].Shared = shared
			m := open(t, o)
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					_, err := m.Create(t.Context(), pathRequest(fmt.Sprintf("v%d", i), "shop/data"))
					switch {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, volume.ErrPathTaken):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d volumes have the path", won.Load())
			}
		})
	}
}

// TestName: the link leads to where the volume is, is kept right, and is
// removed with the directories that only it needed.
func TestName(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	at, err := createNamed(t, m, "one", "shop/web/data")
	if err != nil || at != filepath.Join(dir, "paths/shop/web/data") {
		t.Fatal(at, err)
	}
	leadsTo := func(want string) {
		t.Helper()
		if got, err := os.Readlink(at); got != want {
			t.Errorf("it leads to %q, %v", got, err)
		}
	}
	leadsTo("/somewhere/one/volume")
	if again, err := m.Name(t.Context(), "one", "/elsewhere/one/volume"); err != nil || again != at {
		t.Error(again, err)
	}
	leadsTo("/elsewhere/one/volume")
	if fi, err := os.Stat(filepath.Join(dir, "paths/shop")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	if _, err := createNamed(t, m, "two", "shop/other"); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got, _ := filepath.Glob(filepath.Join(dir, "paths/*/*")); fmt.Sprint(got) != "["+filepath.Join(dir, "paths/shop/other")+"]" {
		t.Errorf("left: %v", got)
	}
	if err := m.Delete(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadDir(filepath.Join(dir, "paths")); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	if plain, err := m.Create(t.Context(), request("plain", 1<<20)); err != nil || plain.Path != "" {
		t.Fatal(plain, err)
	}
	if at, err := m.Name(t.Context(), "plain", "/somewhere/plain"); err != nil || at != "/somewhere/plain" {
		t.Errorf("without a path: %q, %v", at, err)
	}
}

// TestNameStranger: what others put where the link is to be is left alone, and
// a link above it leads nowhere.
func TestNameStranger(t *testing.T) {
	for name, put := range map[string]func(dir, outside string) error{
		"a directory":      func(dir, _ string) error { return os.MkdirAll(filepath.Join(dir, "paths/shop/data"), 0o700) },
		"another's link":   func(dir, outside string) error { return os.Symlink(outside, filepath.Join(dir, "paths/shop/data")) },
		"a link above":     func(dir, outside string) error { return os.Symlink(outside, filepath.Join(dir, "paths/shop")) },
		"a link for paths": func(dir, outside string) error { return os.Symlink(outside, filepath.Join(dir, "paths")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			m := open(t, testOptions(dir))
			switch name {
			case "another's link":
				if err := os.MkdirAll(filepath.Join(dir, "paths/shop"), 0o700); err != nil {
					t.Fatal(err)
				}
			case "a link above":
				if err := os.Mkdir(filepath.Join(dir, "paths"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := put(dir, outside); err != nil {
				t.Fatal(err)
			}
			if at, err := createNamed(t, m, "one", "shop/data"); err == nil {
				t.Errorf("it was named %s", at)
			}
			if got, err := os.ReadDir(outside); err != nil || len(got) > 0 {
				t.Errorf("outside: %v, %v", got, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "paths")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPathBad: a path that did not come from a pattern is refused here, too.
func TestPathBad(t *testing.T) {
	m := open(t, testOptions(t.TempDir()))
	for _, path := range []volume.Path{"../x", "a/../../x", "/etc", "a//b", ".plinth", "a/.b"} {
		if _, err := m.Create(t.Context(), pathRequest("one", path)); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestNameCuts cuts making, naming and deleting at each step: nothing that is
// half there stays, and what is repeated succeeds.
func TestNameCuts(t *testing.T) {
	for n := 0; ; n++ {
		dir := t.TempDir()
		cut := &cutter{n: n}
		m := open(t, cutOptions(dir, cut))
		_, err := createNamed(t, m, "one", "shop/data")
		if err == nil {
			err = m.Delete(t.Context(), "one")
		}
		m.Close()
		if err != nil && !errors.Is(err, errCut) {
			t.Fatalf("step %d: %v", n, err)
		}
		m = open(t, testOptions(dir))
		agree(t, m, fmt.Sprintf("after a cut at step %d", n))
		if _, err := m.Get(t.Context(), "one"); errors.Is(err, volume.ErrNotFound) {
			if left, _ := os.ReadDir(filepath.Join(dir, "paths")); len(left) > 0 {
				t.Errorf("step %d: without the volume there is %v", n, left)
			}
		}
		at, err := createNamed(t, m, "one", "shop/data")
		if err != nil {
			t.Fatalf("again after a cut at step %d: %v", n, err)
		}
		if text, err := os.Readlink(at); err != nil || text != "/somewhere/one/volume" {
			t.Errorf("again after a cut at step %d: %q, %v", n, text, err)
		}
		if err := m.Delete(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "paths")); len(left) > 0 {
			t.Errorf("after a cut at step %d and all: %v", n, left)
		}
		m.Close()
		if !cut.cut {
			return
		}
	}
}
