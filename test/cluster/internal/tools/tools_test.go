package tools

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathFollowsTheModuleFiles(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Source: t.TempDir()}
	module := filepath.Join(c.Source, "tools", "etcd")
	if err := os.MkdirAll(module, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := func() string {
		t.Helper()
		p, err := c.Path("etcd")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("go.mod", "module a\n")
	write("go.sum", "")
	first := path()
	if path() != first || !strings.HasPrefix(first, filepath.Join(c.Dir, "tools", "etcd-")) {
		t.Errorf("path %s, then %s", first, path())
	}
	write("go.sum", "x")
	second := path()
	if second == first {
		t.Error("another go.sum gives the same folder")
	}
	// The border between the two files counts.
	write("go.mod", "module a\nx")
	write("go.sum", "")
	if p := path(); p == first || p == second {
		t.Error("a byte that moved from go.sum to go.mod gives the same folder")
	}
	if _, err := c.Path("nothing"); err == nil {
		t.Error("an unknown group has a path")
	}
}

func TestBuildSkipsWhatIsThere(t *testing.T) {
	c, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	c.Dir = t.TempDir()
	want, err := c.Path("etcd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	dirs, err := c.Build(t.Context(), []string{"etcd"}, func(string, ...any) { t.Error("built something") })
	if err != nil || dirs["etcd"] != want {
		t.Errorf("Build: %v, %v", dirs, err)
	}
}

func TestEveryGroupHasAModule(t *testing.T) {
	c, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if _, err := c.Path(name); err != nil {
			t.Error(err)
		}
	}
}
