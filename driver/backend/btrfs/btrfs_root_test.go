//go:build root

package btrfs

import (
	"os"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/subvolume"
	"github.com/plinth-csi/plinth/driver/volume"
)

func harness(newPool func(t *testing.T) backendtest.Pool) backendtest.Harness {
	return backendtest.Harness{
		New:       newPool,
		Spec:      volume.Spec{Mode: volume.Filesystem, Size: 64 << 20},
		Enforced:  true,
		Trees:     true,
		Snapshots: true,
		Overhead:  4 << 20,
		Cuts:      true,
		Scrubs:    func(t *testing.T, p backendtest.Pool) string { return loopfs.DeviceOf(t, p.Dir) },
		HalfMade:  []string{".plinth/tmp/volume-x/", ".plinth/trash/volume-y/", ".plinth/tmp/snapshot-z/"},
		Unsupported: []volume.Spec{
			{Mode: volume.Block, Size: 64 << 20},
			{Mode: volume.Filesystem, Size: 64 << 20, FSType: "ext4"},
			{Mode: volume.Filesystem, Size: 64 << 20, Thick: true},
		},
		OutOfRange: []volume.Spec{{Mode: volume.Filesystem, Size: 1000}},
	}
}

func TestSuite(t *testing.T) {
	for name, full := range map[string]bool{"simple quotas": false, "full quotas": true} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, harness(func(t *testing.T) backendtest.Pool {
				dir := loopfs.New(t, loopfs.Options{Type: "btrfs"}).Dir
				if full {
					enableFull(t, dir)
				}
				return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
					return Open(t.Context(), Options{Dir: dir})
				}, OpenCut: func(step func(string) error) (backend.Opened, error) {
					return Open(t.Context(), Options{Dir: dir, step: step})
				}}
			}))
		})
	}
}

// enableFull stands for an administrator who switched quotas on before.
func enableFull(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := subvolume.EnableFullQuota(f); err != nil {
		t.Fatal(err)
	}
}
