//go:build root

package device

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		name string
		spec volume.Spec
	}{
		{"ext4", volume.Spec{Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20}},
		{"xfs", volume.Spec{Mode: volume.Filesystem, FSType: "xfs", Size: 320 << 20}},
		{"block", volume.Spec{Mode: volume.Block, Size: 32 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var disks []string // of the test that runs now
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) backendtest.Pool {
					dir := t.TempDir()
					disks = loopfs.Disks(t, 8, c.spec.Size)
					return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, Devices: disks})
					}, OpenCut: func(step func(string) error) (backend.Opened, error) {
						return Open(t.Context(), Options{Dir: dir, Devices: disks, step: step})
					}}
				},
				Spec:     c.spec,
				Enforced: true,
				Overhead: 8 << 20,
				Cuts:     true,
				Grow:     growDisk,
				Thick:    true,
				Scrubs: func(*testing.T, backendtest.Pool) string {
					return disks[0] // of disks of one size the first is taken
				},
				HalfMade: []string{".plinth/tmp/volume-x.disk", ".plinth/trash/volume-y.disk"},
				Unsupported: []volume.Spec{
					{Mode: "Object", Size: 32 << 20},
					{Mode: volume.Filesystem, Size: 32 << 20, FSType: "ntfs"},
					{Mode: volume.Block, Size: 32 << 20, FSType: "ext4"},
					{Mode: volume.Block, Size: 32 << 20, MkfsOptions: []string{"-N", "1024"}},
				},
			})
		})
	}
}

// growDisk makes the file behind the disk of a volume larger, and the disk.
func growDisk(t *testing.T, p backendtest.Pool, id volume.ID, size int64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Dir, "volumes", string(id)+".disk"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := decode(string(id), data)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if _, err := fmt.Sscanf(c.Disk, "loop:%s", &name); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d, _, err := loop.Find(f)
	if err == nil {
		err = loop.Resize(d)
	}
	if err != nil {
		t.Fatal(err)
	}
}
