//go:build root

package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// mounted is a pool on XFS with a volume that is mounted.
func mounted(t *testing.T, fsType string, size int64) (pool, dev, at string) {
	t.Helper()
	pool = loopfs.New(t, loopfs.Options{Type: "xfs", Size: 4 << 30}).Dir
	b, err := Open(t.Context(), Options{Dir: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Ensure(t.Context(), volume.Spec{ID: "source", Mode: volume.Filesystem, FSType: fsType, Size: size}); err != nil {
		t.Fatal(err)
	}
	src, err := b.Attach(t.Context(), "source")
	if err != nil {
		t.Fatal(err)
	}
	at = t.TempDir()
	if err := mount.Device(src.Device, at, fsType, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test that fails with it frozen must not leave it so for ever.
		major, minor, err := device.Number(src.Device)
		if err := errors.Join(err, mount.Thaw(major, minor), mount.Unmount(at)); err != nil {
			t.Error(err)
		}
	})
	return pool, src.Device, at
}

// writes reports whether a file can be written within a time.
func writes(t *testing.T, at string, wait time.Duration) bool {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(filepath.Join(at, "file"), []byte("x"), 0o600) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
		return true
	case <-time.After(wait):
		return false
	}
}

// TestThawsWhateverHappens: f fails, f panics, the process ends: the consumer
// goes on.
func TestThawsWhateverHappens(t *testing.T) {
	pool, dev, at := mounted(t, "ext4", 64<<20)
	major, minor, err := device.Number(dev)
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	if err := mount.WhileFrozen(major, minor, func() error {
		if writes(t, at, 100*time.Millisecond) {
			t.Error("it is not frozen")
		}
		return failed
	}); !errors.Is(err, failed) {
		t.Errorf("WhileFrozen: %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = mount.WhileFrozen(major, minor, func() error { panic("in the midst of it") })
	}()
	if !writes(t, at, 10*time.Second) {
		t.Fatal("it stays frozen after a panic")
	}

	// What a process leaves that is killed during the reflink.
	left := filepath.Join(pool, ".plinth/tmp/snapshot-x.img")
	if err := errors.Join(os.WriteFile(left, nil, 0o600),
		unix.Setxattr(left, contentAttribute, []byte("ext4"), 0),
		unix.Setxattr(left, sourceAttribute, []byte("volumes/source.img"), 0)); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	const freeze = 0xC0045877 // FIFREEZE
	if err := errors.Join(unix.IoctlSetInt(int(dir.Fd()), freeze, 0), dir.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), Options{Dir: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !writes(t, at, 10*time.Second) {
		t.Fatal("it stays frozen after a cut")
	}
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Errorf("the half snapshot is there: %v", err)
	}
}

// TestForeignFreeze: what an administrator has frozen is neither copied nor thawed.
func TestForeignFreeze(t *testing.T) {
	pool, dev, at := mounted(t, "ext4", 64<<20)
	major, minor, err := device.Number(dev)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), Options{Dir: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = mount.WhileFrozen(major, minor, func() error {
		_, err := b.Snapshot(t.Context(), "source", "snap", nil)
		if writes(t, at, 100*time.Millisecond) {
			t.Error("it was thawed")
		}
		return err
	})
	if !errors.Is(err, volume.ErrBusy) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("Snapshot of a frozen volume: %v", err)
	}
	err = mount.WhileFrozen(major, minor, func() error {
		c, err := b.Prepare(t.Context(), "source", "snap")
		if err != nil {
			return err
		}
		err = c.Freeze()
		if e := errors.Join(c.Thaw(), c.Close(), b.RemoveSnapshot(t.Context(), "snap")); e != nil {
			t.Error(e)
		}
		if writes(t, at, 100*time.Millisecond) {
			t.Error("it was thawed by one of a group")
		}
		return err
	})
	if !errors.Is(err, volume.ErrBusy) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("Freeze of a frozen volume: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(pool, ".plinth/tmp")); err != nil || len(left) != 0 {
		t.Errorf(".plinth/tmp holds %v (%v)", left, err)
	}
}
