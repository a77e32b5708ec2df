package memory_test

import (
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/backendtest"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/volume"
)

func TestSuite(t *testing.T) {
	for _, mode := range []volume.Mode{volume.Filesystem, volume.Block} {
		t.Run(string(mode), func(t *testing.T) {
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) backendtest.Pool {
					dir := t.TempDir()
					return backendtest.Pool{Dir: dir, Open: func() (backend.Opened, error) {
						return memory.Open(t.Context(), memory.Options{Dir: dir})
					}}
				},
				Spec:     volume.Spec{Mode: mode, Size: 8 << 20},
				Overhead: 64 << 10, Snapshots: true, Freezes: true,
				HalfMade: []string{".plinth/memory/.new-x.json-ABCDEFGH.tmp"},
				Unsupported: []volume.Spec{
					{Mode: "Object", Size: 1 << 20},
					{Mode: mode, Size: 1 << 20, FSType: "ext4"},
					{Mode: mode, Size: 1 << 20, Thick: true},
				},
				OutOfRange: []volume.Spec{{Mode: mode, Size: memory.DefaultCapacity + 1}},
			})
		})
	}
}
