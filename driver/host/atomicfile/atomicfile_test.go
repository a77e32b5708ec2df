package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Mkdir("tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tmpDir, data string
		perm         fs.FileMode
	}{{"", "one", 0o600}, {"tmp", "two", 0o644}, {"", "", 0o600}} {
		if err := Write(root, c.tmpDir, "file", []byte(c.data), c.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		if err != nil || string(got) != c.data {
			t.Fatalf("read %q, %v; want %q", got, err, c.data)
		}
		if fi, _ := os.Stat(filepath.Join(dir, "file")); fi.Mode().Perm() != c.perm {
			t.Errorf("mode %v, want %v", fi.Mode().Perm(), c.perm)
		}
	}
	requireNames(t, dir, "file", "tmp")
	requireNames(t, filepath.Join(dir, "tmp"))
}

func TestWriteFailureLeavesTheOldFileAndNoRubbish(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// A directory that is not empty cannot be replaced by a file.
	if err := root.MkdirAll("file/below", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(root, "", "file", []byte("x"), 0o600); err == nil {
		t.Fatal("a directory was replaced")
	}
	requireNames(t, dir, "file")
	if err := Write(root, "", "../escaped", []byte("x"), 0o600); err == nil {
		t.Fatal("wrote outside the root")
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{".new-a.json-ABCDEFGH.tmp": true, "a.json": false, ".new-a": false, "x.tmp": false} {
		if IsTemp(name) != want {
			t.Errorf("IsTemp(%q) = %v", name, !want)
		}
	}
}

func TestRemoveAbsent(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Remove(root, "absent"); err != nil {
		t.Fatal(err)
	}
}

func requireNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("%s holds %q, want %q", dir, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s holds %q, want %q", dir, got, want)
		}
	}
}
