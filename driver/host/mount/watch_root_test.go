//go:build root

package mount_test

import (
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"golang.org/x/sys/unix"
)

// TestWatchTellsEveryChange: no change of the mounts is lost, however soon it
// follows another.
func TestWatchTellsEveryChange(t *testing.T) {
	loopfs.NeedRoot(t)
	dir := t.TempDir()
	told := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- mount.Watch(t.Context(), func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	}()
	wait := func(what string) {
		t.Helper()
		select {
		case <-told:
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatalf("not told: %s", what)
		}
	}
	wait("that it has begun")
	for range 300 {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"))
		wait("a mount")
		must(t, unix.Unmount(dir, 0))
		wait("its end")
	}
}
