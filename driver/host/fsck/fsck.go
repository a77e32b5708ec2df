// Package fsck brings filesystems into shape before they are mounted. It
// never formats.
package fsck

import (
	"context"
	"errors"
	"fmt"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// Exit codes of e2fsck(8); they may be added up.
const (
	corrected   = 1
	uncorrected = 4
)

const ext4 = "ext4"

// Prepare repairs the unmounted filesystem on a device, where that needs no
// decision, and grows it to the size of the device. XFS does the one when it
// is mounted, from its log, and the other only then. An error says that a
// person has to look at it; nothing that could lose data was done.
func Prepare(ctx context.Context, runner run.Runner, dev, fsType string) error {
	if fsType != ext4 {
		return nil
	}
	if err := check(ctx, runner, "-p", dev); err != nil {
		return err
	}
	fills, err := device.Ext4Fills(dev)
	if err != nil || fills {
		return err
	}
	// resize2fs(8) asks for a whole check before it changes anything.
	if err := check(ctx, runner, "-fp", dev); err != nil {
		return err
	}
	_, err = runner.Run(ctx, "resize2fs", dev)
	return err
}

func check(ctx context.Context, runner run.Runner, how, dev string) error {
	_, err := runner.Run(ctx, "e2fsck", how, dev)
	var failed *run.Error
	if !errors.As(err, &failed) || failed.Code < 0 {
		return err
	}
	if failed.Code == corrected {
		return nil
	}
	if failed.Code&uncorrected != 0 {
		return fmt.Errorf("the filesystem on %s is damaged beyond what can be repaired without a decision; run e2fsck by hand: %w", dev, err)
	}
	return err
}
