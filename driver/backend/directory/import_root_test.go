//go:build root

package directory

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
)

var imported = volume.Spec{ID: "imported", Mode: volume.Filesystem, Size: 4 << 20}

// foreign makes a tree of others in a pool, of about 1 MiB.
func foreign(t *testing.T, dir string) {
	t.Helper()
	at := filepath.Join(dir, "theirs/sub/deep")
	if err := errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(at, "file"), make([]byte, 1<<20), 0o600),
		os.WriteFile(filepath.Join(dir, "theirs/top"), []byte("top"), 0o600), os.Symlink("/etc", filepath.Join(dir, "theirs/link")),
		syscall.Mkfifo(filepath.Join(dir, "theirs/fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func whole(t *testing.T, when, at string) {
	t.Helper()
	top, err := os.ReadFile(filepath.Join(at, "top"))
	deep, deepErr := os.Stat(filepath.Join(at, "sub/deep/file"))
	link, linkErr := os.Readlink(filepath.Join(at, "link"))
	if err := errors.Join(err, deepErr, linkErr); err != nil || string(top) != "top" || deep.Size() != 1<<20 || link != "/etc" {
		t.Fatalf("%s: at %s: %v", when, at, err)
	}
}

// TestImportCuts cuts an import and a release before each operation: the tree
// is whole under its own name or the volume's, and what is repeated succeeds.
func TestImportCuts(t *testing.T) {
	importCuts(t, Options{Dir: loopfs.New(t, loopfs.Options{Type: "ext4"}).Dir, Quota: QuotaNone})
}

func TestProjectImportCuts(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) { importCuts(t, Options{Dir: dir}) })
}

func importCuts(t *testing.T, o Options) {
	dir := o.Dir
	foreign(t, dir)
	old, place := filepath.Join(dir, "theirs"), filepath.Join(dir, "volumes/imported")
	// cutAt opens the pool and does one thing, cut before operation n;
	// false once it gets through.
	cutAt := func(n int, do func(*Directory) error) bool {
		o := o
		cut := &backendtest.Cut{After: 1000}
		o.step = cut.Step
		b := opened(t, o)
		*cut = backendtest.Cut{After: n}
		err := do(b)
		if err != nil && !errors.Is(err, backendtest.ErrCut) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		whole(t, "cut", old)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		return err != nil
	}
	take := func(b *Directory) error { _, err := b.Import(t.Context(), "theirs", imported); return err }
	give := func(b *Directory) error { return b.Release(t.Context(), imported.ID, "theirs") }
	for n := 0; cutAt(n, take); n++ {
		b := opened(t, o)
		if err := take(b); err != nil {
			t.Fatalf("again after a cut at %d: %v", n, err)
		}
		whole(t, "imported", place)
		if err := errors.Join(give(b), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; cutAt(n, give); n++ {
		b := opened(t, o)
		if err := errors.Join(give(b), give(b)); err != nil {
			t.Fatalf("again after a cut at %d: %v", n, err)
		}
		if fi, err := os.Lstat(old); err != nil || !fi.IsDir() {
			t.Fatalf("released after a cut at %d: %v", n, err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if err := errors.Join(take(b), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImportMounted: a tree in use, or with a mount in it, stays as it is.
func TestImportMounted(t *testing.T) {
	dir := loopfs.New(t, loopfs.Options{Type: "ext4"}).Dir
	foreign(t, dir)
	b := opened(t, Options{Dir: dir, Quota: QuotaNone})
	deep, pod := filepath.Join(dir, "theirs/sub/deep"), t.TempDir()
	for what, at := range map[string][2]string{"a pod has it": {filepath.Join(dir, "theirs"), pod}, "a mount in it": {pod, deep}} {
		if err := syscall.Mount(at[0], at[1], "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		_, err := b.Import(t.Context(), "theirs", imported)
		if unmountErr := syscall.Unmount(at[1], 0); unmountErr != nil {
			t.Fatal(unmountErr)
		}
		if !errors.Is(err, volume.ErrInUse) {
			t.Errorf("%s: %v", what, err)
		}
		whole(t, what, filepath.Join(dir, "theirs"))
	}
	if _, err := b.Import(t.Context(), "theirs", imported); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(filepath.Join(dir, "volumes/imported"), pod, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := b.Release(t.Context(), imported.ID, "back")
	if unmountErr := syscall.Unmount(pod, 0); unmountErr != nil {
		t.Fatal(unmountErr)
	}
	if !errors.Is(err, volume.ErrInUse) {
		t.Errorf("release: %v", err)
	}
}

// TestProjectImport: all that is in the tree counts, and what is made in it; what
// is released has neither project nor limit.
func TestProjectImport(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		foreign(t, dir)
		b := opened(t, Options{Dir: dir})
		if _, err := b.Import(t.Context(), "theirs", imported); err != nil {
			t.Fatal(err)
		}
		u, err := b.Usage(t.Context(), imported.ID, "")
		if err != nil || u.TotalBytes != imported.Size || u.UsedBytes < 1<<20 || u.UsedBytes > 2<<20 {
			t.Errorf("%+v, %v", u, err)
		}
		at := filepath.Join(dir, "volumes/imported/sub/deep")
		if err := os.WriteFile(filepath.Join(at, "more"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if now, err := b.Usage(t.Context(), imported.ID, ""); err != nil || now.UsedBytes < u.UsedBytes+1<<20 || now.UsedInodes != u.UsedInodes+1 {
			t.Errorf("with a file more: %+v, %v", now, err)
		}
		if err := b.Release(t.Context(), imported.ID, "theirs"); err != nil {
			t.Fatal(err)
		}
		if used := inUse(t, b); len(used) > 0 {
			t.Errorf("projects in use: %v", used)
		}
		for _, name := range []string{"theirs", "theirs/top", "theirs/sub/deep", "theirs/sub/deep/file"} {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if id, inherited, err := quota.ProjectOf(f); err != nil || id != 0 || inherited {
				t.Errorf("%s: project %d, inherited %t, %v", name, id, inherited, err)
			}
			f.Close()
		}
	})
}
