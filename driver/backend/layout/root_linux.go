package layout

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/volume"
)

// SetRoot gives the open root directory of a volume that is being made its
// owner and permissions, durably. The zero Root leaves it as it is.
func SetRoot(dir *os.File, r volume.Root) error {
	if r.UID != 0 || r.GID != 0 {
		if err := unix.Fchown(int(dir.Fd()), int(r.UID), int(r.GID)); err != nil {
			return fmt.Errorf("give the root directory to %d:%d: %w", r.UID, r.GID, err)
		}
	}
	if r.Mode != 0 { // after the owner, whose change may clear bits
		if err := unix.Fchmod(int(dir.Fd()), r.Mode); err != nil {
			return fmt.Errorf("give the root directory the permissions %04o: %w", r.Mode, err)
		}
	}
	if r == (volume.Root{}) {
		return nil
	}
	return dir.Sync()
}
