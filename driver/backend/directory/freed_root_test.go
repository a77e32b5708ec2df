//go:build root

package directory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestFreedAtOnce: the bytes of a volume of many files are free when Remove
// returns. XFS frees them in the background, btrfs with its next transaction.
func TestFreedAtOnce(t *testing.T) {
	const files, size = 500, 64 << 10
	for _, fsType := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := loopfs.New(t, loopfs.Options{Type: fsType}).Dir
			b := opened(t, Options{Dir: dir, Quota: QuotaNone})
			for round := range 5 {
				before := durablyFree(t, dir)
				ensure(t, b, volume.Spec{ID: "many", Mode: volume.Filesystem, Size: 64 << 20})
				at := filepath.Join(dir, "volumes", "many")
				for i := range files {
					if err := os.WriteFile(filepath.Join(at, fmt.Sprint(i)), make([]byte, size), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if held := before - durablyFree(t, dir); held < files*size {
					t.Fatalf("%d bytes are in the volume, and %d fewer are free", files*size, held)
				}
				if err := b.Remove(t.Context(), "many"); err != nil {
					t.Fatal(err)
				}
				c, err := b.Capacity(t.Context()) // with nothing written in between
				if err != nil {
					t.Fatal(err)
				}
				if lost := before - c.Free; lost > files*size/10 {
					t.Errorf("round %d: %d bytes are not back after Remove", round, lost)
				}
			}
		})
	}
}

// durablyFree is how many bytes are free when all is written.
func durablyFree(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := errors.Join(unix.Syncfs(int(f.Fd())), unix.Fstatfs(int(f.Fd()), &st)); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Frsize
}
