//go:build root

package image

import (
	"os"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestSectorsStay: a Block volume has the sectors it had before a snapshot
// took direct I/O with them away, and so has what is restored of it. Neither
// is left open by us, which would keep it from being detached.
func TestSectorsStay(t *testing.T) {
	b, err := Open(t.Context(), Options{Dir: loopfs.New(t, loopfs.Options{Type: "xfs"}).Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	spec := volume.Spec{ID: "source", Mode: volume.Block, Size: 32 << 20}
	if _, err := b.Ensure(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	first := attachedSectors(t, b, spec.ID, []byte("data"))
	if _, err := b.Snapshot(t.Context(), spec.ID, "snap", nil); err != nil {
		t.Fatal(err)
	}
	spec.ID = "restored"
	if _, err := b.Restore(t.Context(), "snap", spec, nil); err != nil {
		t.Fatal(err)
	}
	for _, id := range []volume.ID{"source", "restored"} {
		if now := attachedSectors(t, b, id, nil); now != first {
			t.Errorf("%s has sectors of %d bytes, at first %d", id, now, first)
		}
	}
}

// attachedSectors attaches, writes, and detaches.
func attachedSectors(t *testing.T, b backend.Backend, id volume.ID, data []byte) uint32 {
	t.Helper()
	src, err := b.Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == src.Device {
			t.Errorf("%s is left open", src.Device)
		}
	}
	size, err := loop.SectorSize(loop.Device{Path: src.Device})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src.Device, data, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Detach(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return size
}
