//go:build root

package image

import (
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		name string
		pool loopfs.Options
		spec volume.Spec
	}{
		{"ext4 on XFS", loopfs.Options{Type: "xfs"}, volume.Spec{Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20}},
		{"ext4 on ext4", loopfs.Options{Type: "ext4"}, volume.Spec{Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20}},
		{"xfs on XFS", loopfs.Options{Type: "xfs", Size: 4 << 30}, volume.Spec{Mode: volume.Filesystem, FSType: "xfs", Size: 320 << 20}},
		{"block on XFS", loopfs.Options{Type: "xfs"}, volume.Spec{Mode: volume.Block, Size: 32 << 20}},
		{"block on ext4", loopfs.Options{Type: "ext4"}, volume.Spec{Mode: volume.Block, Size: 32 << 20}},
		{"thick ext4 on XFS", loopfs.Options{Type: "xfs"}, volume.Spec{Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20, Thick: true}},
		{"ext4 on btrfs", loopfs.Options{Type: "btrfs"}, volume.Spec{Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) backendtest.Pool {
					dir := loopfs.New(t, c.pool).Dir
					return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir})
					}, OpenCut: func(step func(string) error) (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, step: step})
					}}
				},
				Spec:       c.spec,
				Enforced:   true,
				Overhead:   8 << 20,
				Cuts:       true,
				Snapshots:  true,
				Freezes:    c.pool.Type != "ext4",
				CopiesIdle: c.pool.Type == "ext4",
				Thick:      c.spec.Thick,
				Scrubs:     func(t *testing.T, p backendtest.Pool) string { return loopfs.DeviceOf(t, p.Dir) },
				HalfMade: []string{".plinth/tmp/volume-x.img", ".plinth/trash/volume-y.img",
					".plinth/tmp/snapshot-x.img", ".plinth/trash/snapshot-y.img"},
				Unsupported: []volume.Spec{
					{Mode: "Object", Size: 64 << 20},
					{Mode: volume.Filesystem, Size: 64 << 20, FSType: "ntfs"},
					{Mode: volume.Block, Size: 64 << 20, FSType: "ext4"},
				},
				OutOfRange: []volume.Spec{
					{Mode: volume.Filesystem, Size: 299 << 20, FSType: "xfs"},
					{Mode: volume.Filesystem, Size: 1 << 20, FSType: "ext4"},
				},
			})
		})
	}
}
