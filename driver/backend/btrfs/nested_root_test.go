//go:build root

package btrfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/subvolume"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// nested makes a subvolume as a consumer may in its own volume.
func nested(t *testing.T, dir, name string) string {
	t.Helper()
	parent, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if err := subvolume.Create(parent, name); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func fill(name string, limit int64) (int64, error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	var total int64
	for total < limit && err == nil {
		var n int
		n, err = f.Write(block)
		total += int64(n)
	}
	return total, errors.Join(err, f.Sync(), f.Close())
}

// TestNestedSubvolumes: what a consumer makes inside its volume counts against
// the volume's limit, and goes with it.
func TestNestedSubvolumes(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "btrfs"})
	b, err := Open(t.Context(), Options{Dir: fs.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before, err := b.Capacity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := volume.Spec{ID: "outer", Mode: volume.Filesystem, Size: 64 << 20}
	if _, err := b.Ensure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	src, err := b.Attach(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := fill(filepath.Join(src.Dir, "file"), 20<<20); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	inner := nested(t, src.Dir, "inner")
	if err := os.Mkdir(filepath.Join(inner, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	innermost := nested(t, filepath.Join(inner, "dir"), "innermost")
	a, errA := fill(filepath.Join(inner, "file"), 20<<20)
	c, errC := fill(filepath.Join(innermost, "file"), 200<<20)
	if errA != nil || !errors.Is(errC, unix.EDQUOT) {
		t.Errorf("wrote %d (%v) and %d (%v) bytes into nested subvolumes", a, errA, c, errC)
	}
	if total := 20<<20 + a + c; total > s.Size {
		t.Errorf("%d bytes are in a volume of %d", total, s.Size)
	}
	if err := b.Remove(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	after, err := b.Capacity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lost := before.Free - after.Free; lost > 4<<20 {
		t.Errorf("%d bytes are not back", lost)
	}
	requireNoGroups(t, fs.Dir)
}

func requireNoGroups(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	groups, err := subvolume.Groups(f, level)
	if err != nil || len(groups) != 0 {
		t.Errorf("quota groups left: %v, %v", groups, err)
	}
}

// TestLockedSubvolume: an owner's flags do not keep a volume from removal.
func TestLockedSubvolume(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "btrfs"})
	b, err := Open(t.Context(), Options{Dir: fs.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := volume.Spec{ID: "locked", Mode: volume.Filesystem, Size: 64 << 20}
	if _, err := b.Ensure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Join(fs.Dir, "volumes/locked"))
	if err != nil {
		t.Fatal(err)
	}
	nested(t, dir.Name(), "inner")
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, 0x10); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if err := b.Remove(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	requireNoGroups(t, fs.Dir)
}

// TestStaleGroups: the kernel's group of a subvolume that a killed process has
// begun and that the next one, killed too, has deleted, goes with the start
// after that.
func TestStaleGroups(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "btrfs"})
	open := func() {
		b, err := Open(t.Context(), Options{Dir: fs.Dir})
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	open()
	tmp, err := os.Open(filepath.Join(fs.Dir, ".plinth/tmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if err := subvolume.Create(tmp, "volume-stale"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tmp.Name(), "volume-stale/file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := subvolume.Commit(tmp); err != nil {
		t.Fatal(err)
	}
	ids, err := subvolume.Delete(tmp, "volume-stale")
	if err != nil {
		t.Fatal(err)
	}
	if err := subvolume.WaitDeleted(t.Context(), tmp, ids...); err != nil {
		t.Fatal(err)
	}
	open()
	for _, id := range ids {
		if _, found, err := subvolume.Usage(tmp, subvolume.GroupOf(0, id)); err != nil || found {
			t.Errorf("the group of subvolume %d, which is gone, is there: %t, %v", id, found, err)
		}
	}
}

func TestRefusesOtherFilesystems(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "ext4"})
	if _, err := Open(t.Context(), Options{Dir: fs.Dir}); !errors.Is(err, volume.ErrUnsupported) {
		t.Errorf("Open: %v", err)
	}
	if _, err := os.Stat(filepath.Join(fs.Dir, "volumes")); !os.IsNotExist(err) {
		t.Error("something was made on a filesystem that is refused")
	}
}
