//go:build root

package mkfs

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// holder lets go of a device once mkfs was refused it.
type holder struct {
	run.Exec
	held    *os.File
	refused int
}

func (h *holder) Run(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := h.Exec.Run(ctx, argv...)
	if err != nil && strings.HasPrefix(argv[0], "mkfs.") {
		h.refused++
		h.held.Close()
	}
	return out, err
}

// TestBusyForAMoment: a device that somebody has for a moment is formatted
// when it is free.
func TestBusyForAMoment(t *testing.T) {
	loopfs.NeedTool(t, "mkfs.ext4", "e2fsprogs")
	loopfs.NeedTool(t, "mkfs.xfs", "xfsprogs")
	for _, fsType := range FSTypes() {
		t.Run(fsType, func(t *testing.T) {
			disk := loopfs.Disks(t, 1, 320<<20)[0]
			f, err := os.OpenFile(disk, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			held, err := device.Exclusive(disk)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			h := &holder{held: held}
			if err := Format(t.Context(), h, f, Wish{FSType: fsType}); err != nil || h.refused != 1 {
				t.Errorf("refused %d times, then %v", h.refused, err)
			}
		})
	}
}
