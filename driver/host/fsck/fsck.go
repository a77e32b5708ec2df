// Package fsck repairs filesystems before they are mounted. It never formats.
package fsck

import (
	"context"
	"errors"
	"fmt"

	"github.com/plinth-csi/plinth/driver/host/run"
)

// Exit codes of e2fsck(8); they may be added up.
const (
	corrected   = 1
	uncorrected = 4
)

// Repair brings the unmounted filesystem on a device into a state that can be
// mounted, where that needs no decision (e2fsck -p). XFS repairs itself from
// its log when it is mounted. An error says that a person has to look at it.
func Repair(ctx context.Context, runner run.Runner, device, fsType string) error {
	if fsType != "ext4" {
		return nil
	}
	_, err := runner.Run(ctx, "e2fsck", "-p", device)
	var failed *run.Error
	if errors.As(err, &failed) && failed.Code == corrected {
		return nil
	}
	if errors.As(err, &failed) && failed.Code > 0 && failed.Code&uncorrected != 0 {
		return fmt.Errorf("the filesystem on %s is damaged beyond what can be repaired without losing data; nothing was changed: run e2fsck by hand: %w", device, err)
	}
	return err
}
