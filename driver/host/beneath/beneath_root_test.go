//go:build root

package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: run it as root")
	}
}

func bindMount(t *testing.T, from, to string) {
	t.Helper()
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
}

// TestMountsBelow: a bind within the same filesystem, which a comparison of
// device numbers does not see, stops a removal before anything is removed.
func TestMountsBelow(t *testing.T) {
	needRoot(t)
	dir, outside := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	d := open(t, dir)
	must(t, os.MkdirAll(filepath.Join(dir, "tree/new\nline/bound"), 0o700), os.WriteFile(filepath.Join(dir, "tree/file"), nil, 0o600))
	bindMount(t, outside, filepath.Join(dir, "tree/new\nline/bound"))
	if err := d.RemoveTree(t.Context(), "tree"); !errors.Is(err, ErrMount) {
		t.Errorf("RemoveTree over a mount: %v", err)
	}
	for _, name := range []string{"tree/file", "tree/new\nline/bound/precious"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("removed before it was refused: %v", err)
		}
	}
	if _, err := d.OpenFile("tree/new\nline/bound/precious", unix.O_RDONLY, 0); !errors.Is(err, ErrMount) {
		t.Errorf("open across a mount: %v", err)
	}
	must(t, unix.Unmount(filepath.Join(dir, "tree/new\nline/bound"), 0), d.RemoveTree(t.Context(), "tree"))
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Errorf("outside was touched: %v", err)
	}
}

func TestImmutable(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	d := open(t, dir)
	must(t, os.MkdirAll(filepath.Join(dir, "tree/a/b/c"), 0o700))
	for _, name := range []string{"tree/file", "tree/a/file", "tree/a/b/c/file"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	// The deepest first: an immutable directory takes no more entries.
	for _, f := range []struct {
		name string
		flag int
	}{{"tree/a/b/c/file", immutableFlag}, {"tree/a/b/c", appendFlag}, {"tree/a/b", immutableFlag},
		{"tree/a/file", appendFlag}, {"tree/a", immutableFlag}, {"tree/file", immutableFlag}, {"tree", immutableFlag}} {
		file, err := os.Open(filepath.Join(dir, f.name))
		must(t, err)
		have, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
		must(t, err, unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, have|f.flag), file.Close())
	}
	must(t, d.RemoveTree(t.Context(), "tree"))
	if _, err := os.Lstat(filepath.Join(dir, "tree")); !os.IsNotExist(err) {
		t.Errorf("the tree is there: %v", err)
	}
}
