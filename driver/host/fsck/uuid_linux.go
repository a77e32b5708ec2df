package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// uuidAt is where a filesystem's UUID is, in bytes from the start: s_uuid of
// ext4's superblock and sb_uuid of XFS's.
var uuidAt = map[string]int64{ext4: 1024 + 0x68, xfs: 32}

// UUID reads the UUID of the filesystem in an open file or device.
func UUID(f *os.File, fsType string) ([16]byte, error) {
	var id [16]byte
	at, known := uuidAt[fsType]
	if !known {
		return id, fmt.Errorf("read the UUID of %s: %s: %w", f.Name(), fsType, errors.ErrUnsupported)
	}
	if _, err := f.ReadAt(id[:], at); err != nil {
		return id, fmt.Errorf("read the UUID of %s: %w", f.Name(), err)
	}
	return id, nil
}

// NewUUID gives the filesystem in an image, a copy that nothing has attached,
// a UUID of its own, so that it can be mounted beside the one it was copied
// from. Its log is replayed first. The file is open for reading and writing;
// after a cut it is to be called again.
func NewUUID(ctx context.Context, runner run.Runner, f *os.File, fsType string) error {
	before, err := UUID(f, fsType)
	if err != nil {
		return err
	}
	// By descriptor: the name may be moved, the open file is the one.
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
	if fsType == ext4 {
		err = newExt4(ctx, runner, path)
	} else {
		err = newXFS(ctx, runner, f, path)
	}
	if err != nil {
		return fmt.Errorf("give the copy %s a UUID: %w", f.Name(), err)
	}
	after, err := UUID(f, fsType)
	if err == nil && bytes.Equal(before[:], after[:]) {
		err = fmt.Errorf("give the copy %s a UUID: it still has %x", f.Name(), before)
	}
	return err
}

// newExt4: with the feature metadata_csum_seed, which every image of Plinth's
// has, only the superblock changes; without it tune2fs(8) asks for a whole
// check and rewrites every checksum.
func newExt4(ctx context.Context, runner run.Runner, path string) error {
	if err := check(ctx, runner, "-p", path); err != nil {
		return err
	}
	tune := []string{"tune2fs", "-U", "random", path}
	if _, err := runner.Run(ctx, tune...); err == nil || ctx.Err() != nil {
		return err
	}
	if err := check(ctx, runner, "-fp", path); err != nil {
		return err
	}
	_, err := runner.Run(ctx, tune...)
	return err
}

// newXFS does what xfs_admin(8) does, to a file. A copy made under a freeze
// has a log to replay, which only the kernel can do.
func newXFS(ctx context.Context, runner run.Runner, f *os.File, path string) error {
	d, err := loop.Attach(f)
	if err != nil {
		return err
	}
	if err := errors.Join(mount.Once(d.Path, xfs, "nouuid"), loop.Detach(f)); err != nil {
		return err
	}
	_, err = runner.Run(ctx, "xfs_db", "-x", "-f", "-p", "xfs_admin", "-c", "uuid generate", path)
	return err
}
