//go:build root

package directory

import (
	"errors"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

var unsupported = []volume.Spec{
	{Mode: volume.Block, Size: 64 << 20},
	{Mode: volume.Filesystem, Size: 64 << 20, FSType: "ext4"},
	{Mode: volume.Filesystem, Size: 64 << 20, Thick: true},
}

func TestQuotaNone(t *testing.T) {
	for _, fsType := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) backendtest.Pool {
					o := loopfs.Options{Type: fsType}
					if fsType == "ext4" {
						o.Mkfs = []string{"-N", "400000"} // for the hostile trees when they are whole
					}
					dir := loopfs.New(t, o).Dir
					return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, Quota: QuotaNone})
					}, OpenCut: func(step func(string) error) (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, Quota: QuotaNone, step: step})
					}}
				},
				Spec:        volume.Spec{Mode: volume.Filesystem, Size: 64 << 20},
				Trees:       true,
				Overhead:    2 << 20,
				Cuts:        true,
				Scrubs:      func(t *testing.T, p backendtest.Pool) string { return loopfs.DeviceOf(t, p.Dir) },
				Snapshots:   true,
				HalfMade:    []string{".plinth/tmp/volume-x/", ".plinth/trash/volume-y/", ".plinth/tmp/snapshot-x/", ".plinth/trash/snapshot-y/"},
				Unsupported: unsupported,
			})
		})
	}
}

// TestProjectQuota needs a kernel with project quotas: it is run in a virtual
// machine where this one has none.
func TestProjectQuota(t *testing.T) {
	for _, pool := range projectPools {
		t.Run(pool.Type, func(t *testing.T) {
			needProjectQuota(t)
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) backendtest.Pool {
					dir := loopfs.New(t, pool).Dir
					return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir})
					}, OpenCut: func(step func(string) error) (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, step: step})
					}}
				},
				Spec:        volume.Spec{Mode: volume.Filesystem, Size: 64 << 20},
				Enforced:    true,
				Trees:       true,
				Overhead:    2 << 20,
				Cuts:        true,
				Scrubs:      func(t *testing.T, p backendtest.Pool) string { return loopfs.DeviceOf(t, p.Dir) },
				Snapshots:   true,
				HalfMade:    []string{".plinth/tmp/volume-x/", ".plinth/trash/volume-y/", ".plinth/tmp/snapshot-x/", ".plinth/trash/snapshot-y/"},
				Unsupported: unsupported,
				OutOfRange:  []volume.Spec{{Mode: volume.Filesystem, Size: 1000}},
			})
		})
	}
}

// TestRefusesWithoutQuota: a filesystem that cannot limit is refused with the
// ways out, and nothing is made on it.
func TestRefusesWithoutQuota(t *testing.T) {
	for _, fsType := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := loopfs.New(t, loopfs.Options{Type: fsType}).Dir
			_, err := Open(t.Context(), Options{Dir: dir})
			if !errors.Is(err, volume.ErrUnsupported) {
				t.Fatalf("Open: %v", err)
			}
			if want := "the filesystem at " + dir + " is not mounted with prjquota; mount it so, use backend image, or set quota: none"; !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say how to go on: %v", err)
			}
		})
	}
}
