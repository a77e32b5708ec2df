package backendtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

func testUnfinished(t *testing.T, e *env) {
	e.ensure(t, e.spec("whole"))
	for _, name := range e.HalfMade {
		lay(t, filepath.Join(e.pool.Dir, strings.TrimSuffix(name, "/")), strings.HasSuffix(name, "/"))
	}
	e.reopen(t)
	for _, name := range e.HalfMade {
		if _, err := os.Lstat(filepath.Join(e.pool.Dir, strings.TrimSuffix(name, "/"))); err == nil {
			t.Errorf("opening left %s", name)
		}
	}
	e.requireIDs(t, "whole")
}

func testUnknown(t *testing.T, e *env) {
	strangers := []string{"Not A Volume", ".hidden", "file.txt", "UPPER/", "a_b.img"}
	for _, s := range strangers {
		name := strings.TrimSuffix(s, "/")
		lay(t, filepath.Join(e.pool.Dir, "volumes", name), strings.HasSuffix(s, "/"))
		e.strangers = append(e.strangers, name)
	}
	outside := filepath.Join(e.pool.Dir, ".plinth", "notes.txt")
	lay(t, outside, false)
	e.reopen(t)
	e.requireIDs(t)
	if _, err := os.Lstat(outside); err != nil {
		t.Errorf("an unknown file was touched: %v", err)
	}
}

// testSymlinks puts links where a volume would be: no method follows them,
// and what they point to stays as it is.
func testSymlinks(t *testing.T, e *env) {
	target := t.TempDir()
	precious := filepath.Join(target, "precious")
	lay(t, precious, false)
	for _, suffix := range suffixes {
		to := target
		if suffix != "" {
			to = precious
		}
		if err := os.Symlink(to, filepath.Join(e.pool.Dir, "volumes", "link"+suffix)); err != nil {
			t.Fatal(err)
		}
		e.strangers = append(e.strangers, "link"+suffix)
	}
	e.requireIDs(t)
	for what, err := range map[string]error{
		"Get":    second(e.b.Get(t.Context(), "link")),
		"Attach": second(e.b.Attach(t.Context(), "link")),
		"Usage":  second(e.b.Usage(t.Context(), "link", "")),
	} {
		if err == nil {
			t.Errorf("%s follows a symlink", what)
		}
	}
	if _, err := e.b.Ensure(t.Context(), e.spec("link")); err == nil {
		if _, err := e.b.Attach(t.Context(), "link"); err == nil {
			t.Error("a volume was made of a symlink")
		}
	}
	// Removing may refuse or remove the link itself.
	_ = e.b.Remove(t.Context(), "link")
	data, err := os.ReadFile(precious)
	if err != nil || !bytes.Equal(data, []byte(rubbish)) {
		t.Errorf("what the link points to was touched: %v", err)
	}
	if len(names(t, target)) != 1 {
		t.Errorf("something was put where the link points: %q", names(t, target))
	}
	e.strangers = nil
	for _, suffix := range suffixes {
		_ = os.Remove(filepath.Join(e.pool.Dir, "volumes", "link"+suffix))
	}
}

func second[T any](_ T, err error) error { return err }

// testHostileTree removes what a pod's root may leave behind.
func testHostileTree(t *testing.T, e *env) {
	outside := t.TempDir()
	lay(t, filepath.Join(outside, "precious"), false)
	s := e.spec("hostile")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	for link, to := range map[string]string{"root": "/", "up": "../..", "out": outside, "self": "self", "proc": "/proc/self/root"} {
		if err := os.Symlink(to, filepath.Join(c.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"new\nline", "-rf", "*", "\xff\xfe", strings.Repeat("n", 255)} {
		lay(t, filepath.Join(c.dir, name), true)
	}
	if err := os.Chmod(filepath.Join(c.dir, "*"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(c.dir, "-rf", "file"), filepath.Join(c.dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(c.dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
	e.requireIDs(t)
	if data, err := os.ReadFile(filepath.Join(outside, "precious")); err != nil || string(data) != rubbish {
		t.Errorf("something outside was touched: %v", err)
	}
	_, err := e.b.Get(t.Context(), s.ID)
	requireError(t, err, volume.ErrNotFound)
}

// testMountBelow: a volume with something mounted inside is in use, and what
// is mounted there is not reached through it.
func testMountBelow(t *testing.T, e *env) {
	outside := t.TempDir()
	lay(t, filepath.Join(outside, "precious"), false)
	s := e.spec("below")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	inside := filepath.Join(c.dir, "a/b")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(outside, inside, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(inside); err != nil {
			t.Error(err)
		}
	})
	requireError(t, e.b.Remove(t.Context(), s.ID), volume.ErrInUse)
	if _, err := os.Stat(filepath.Join(inside, "precious")); err != nil {
		t.Errorf("what was mounted below was touched: %v", err)
	}
	if err := mount.Unmount(inside); err != nil {
		t.Fatal(err)
	}
	e.remove(t, s.ID)
}

const rubbish = "left by somebody"

// lay puts a file, or a directory with a file in it.
func lay(t *testing.T, name string, dir bool) {
	t.Helper()
	if dir {
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(name, "file")
	}
	if err := os.WriteFile(name, []byte(rubbish), 0o644); err != nil {
		t.Fatal(err)
	}
}

// bindElsewhere binds dir as kubelet does for a pod; the result unbinds it.
func bindElsewhere(t *testing.T, dir string) func() {
	t.Helper()
	to := t.TempDir()
	if err := syscall.Mount(dir, to, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s: %v", dir, err)
	}
	bound := true
	release := func() {
		if bound {
			bound = false
			if err := mount.Unmount(to); err != nil {
				t.Errorf("unmount %s: %v", to, err)
			}
		}
	}
	t.Cleanup(release)
	return release
}
