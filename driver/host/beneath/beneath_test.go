package beneath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestNothingLeavesTheDirectory(t *testing.T) {
	create := func(d *Dir, name string) error {
		_, err := d.OpenFile(name, unix.O_CREAT|unix.O_RDWR, 0o600)
		return err
	}
	for what, op := range map[string]func(d *Dir, name string) error{
		"create":      create,
		"mkdir":       func(d *Dir, name string) error { return d.Mkdir(name+"/new", 0o700) },
		"rename":      func(d *Dir, name string) error { return d.Rename(name+"/sub", "moved") },
		"rename to":   func(d *Dir, name string) error { return d.Rename("file", name+"/moved") },
		"remove":      func(d *Dir, name string) error { return d.Remove(name + "/precious") },
		"remove tree": func(d *Dir, name string) error { return d.RemoveTree(t.Context(), name+"/sub") },
		"list":        func(d *Dir, name string) error { _, err := d.Entries(name); return err },
	} {
		for _, name := range []string{"..", "../outside", "/etc", "out", "out/sub", "in/sub", "magic/etc", "sub/../../outside"} {
			t.Run(what+" "+name, func(t *testing.T) {
				parent := t.TempDir()
				dir, outside := filepath.Join(parent, "pool"), filepath.Join(parent, "outside")
				must(t, os.MkdirAll(filepath.Join(dir, "sub/sub"), 0o700), os.MkdirAll(filepath.Join(outside, "sub/sub"), 0o700),
					os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600),
					os.Symlink(outside, filepath.Join(dir, "out")), os.Symlink("sub", filepath.Join(dir, "in")),
					os.Symlink("/proc/self/root", filepath.Join(dir, "magic")))
				if err := op(open(t, dir), name); err == nil {
					t.Error("it was done")
				}
				for where, want := range map[string]string{parent: "[outside pool]", outside: "[precious sub]", outside + "/sub": "[sub]", dir: "[file in magic out sub]"} {
					if got := namesIn(t, where); got != want {
						t.Errorf("%s holds %s, want %s", where, got, want)
					}
				}
			})
		}
	}
}

func namesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return fmt.Sprint(names)
}

func TestMkdirAndRename(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	old := unix.Umask(0o077)
	err := d.Mkdir("a", 0o755)
	unix.Umask(old)
	must(t, err, d.Mkdir("a", 0o700), d.Mkdir("a/b", 0o700))
	if fi, err := os.Stat(filepath.Join(dir, "a")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if err := d.Mkdir("file", 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("mkdir over a file: %v", err)
	}
	if err := d.Rename("a", "file"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename over a file: %v", err)
	}
	must(t, d.Rename("file", "a/file"), d.Remove("a/file"), d.Remove("a/file"))
	if _, err := d.Lstat("a/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lstat: %v", err)
	}
	if err := d.Remove("a"); err == nil {
		t.Error("Remove removed a directory")
	}
}

func TestRemoveTree(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	must(t, os.WriteFile(outside, []byte("x"), 0o600))
	for name, build := range map[string]func(t *testing.T, dir string){
		"empty": func(*testing.T, string) {},
		"deep":  func(t *testing.T, dir string) { deep(t, dir, 1500) },
		"many in one": func(t *testing.T, dir string) {
			for i := range 20_000 {
				must(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600))
			}
		},
		"many directories": func(t *testing.T, dir string) {
			for i := range 1500 {
				must(t, os.MkdirAll(fmt.Sprintf("%s/%d/a/b/c", dir, i), 0o700))
			}
		},
		"names": func(t *testing.T, dir string) {
			for _, n := range []string{"new\nline", "-rf", "*", "\xff\xfe", " ", strings.Repeat("n", 255), ".plinth-x", "..."} {
				must(t, os.MkdirAll(filepath.Join(dir, n, n), 0o700))
			}
		},
		"links": func(t *testing.T, dir string) {
			must(t, os.Symlink("/", dir+"/root"), os.Symlink(filepath.Dir(outside), dir+"/dir"),
				os.Symlink("loop", dir+"/loop"), unix.Mkfifo(dir+"/fifo", 0o600),
				os.Mkdir(dir+"/sub", 0), os.WriteFile(dir+"/large", make([]byte, 2<<20), 0))
			must(t, os.Link(dir+"/large", dir+"/hard"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := open(t, dir)
			must(t, d.Mkdir("tree", 0o755))
			build(t, filepath.Join(dir, "tree"))
			before := descriptors(t)
			must(t, d.RemoveTree(t.Context(), "tree"), d.RemoveTree(t.Context(), "tree"))
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			if _, err := os.Lstat(filepath.Join(dir, "tree")); !os.IsNotExist(err) {
				t.Errorf("the tree is there: %v", err)
			}
		})
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "x" {
		t.Errorf("outside was touched: %v", err)
	}
}

// deep makes a chain whose path is far longer than PATH_MAX.
func deep(t *testing.T, dir string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, "directory", 0o700))
		next, err := unix.Openat(fd, "directory", unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestRemoveTreesTogether: large trees that are removed at the same time, each
// cut by its context again and again, are all gone at the end.
func TestRemoveTreesTogether(t *testing.T) {
	dir := t.TempDir()
	const trees = 3
	for i := range trees {
		tree := filepath.Join(dir, fmt.Sprint("tree", i))
		must(t, os.MkdirAll(filepath.Join(tree, "below"), 0o700))
		for n := range 2 * atOnce {
			must(t, os.WriteFile(filepath.Join(tree, "below", fmt.Sprint(n)), nil, 0o600))
		}
	}
	d := open(t, dir)
	var wg sync.WaitGroup
	for i := range trees {
		wg.Go(func() {
			for after := time.Millisecond; ; after *= 2 {
				ctx, cancel := context.WithTimeout(t.Context(), after)
				err := d.RemoveTree(ctx, fmt.Sprint("tree", i))
				cancel()
				if err == nil {
					return
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestLinks: a symlink is made, read and removed, and never followed.
func TestLinks(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "pool")
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700), os.Mkdir(filepath.Join(parent, "outside"), 0o700))
	d := open(t, dir)
	must(t, d.Symlink("../../outside", "sub/link"))
	if err := d.Symlink("x", "sub/link"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	if text, err := d.Readlink("sub/link"); err != nil || text != "../../outside" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := d.Readlink("sub"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a directory read as a link: %v", err)
	}
	if _, err := d.Readlink("sub/link/x"); err == nil {
		t.Error("it was followed")
	}
	if err := d.Symlink("x", "sub/link/x"); err == nil {
		t.Error("it was followed")
	}
	if err := d.Rmdir("sub/link"); err == nil {
		t.Error("a link was removed as a directory")
	}
	if err := d.Rmdir("sub"); err == nil {
		t.Error("a directory that is not empty was removed")
	}
	must(t, d.Remove("sub/link"), d.Rmdir("sub"), d.Rmdir("sub"))
	if left, err := os.ReadDir(filepath.Join(parent, "outside")); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}
