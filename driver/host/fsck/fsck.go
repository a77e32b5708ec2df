// Package fsck brings filesystems into shape before they are mounted. It
// never formats.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// Exit codes of e2fsck(8); they may be added up.
const (
	corrected   = 1
	uncorrected = 4
)

const (
	ext4 = "ext4"
	xfs  = "xfs"

	xfsMagic = "XFSB" // sb_magicnum, the first bytes of the device
)

// Prepare repairs the unmounted filesystem on a device, where that needs no
// decision, and grows it to the size of the device. XFS does the one when it
// is mounted, from its log, and the other only then. An error says that a
// person has to look at it, and with which command; nothing that could lose
// data was done.
func Prepare(ctx context.Context, runner run.Runner, dev, fsType string) error {
	switch fsType {
	case ext4:
		return prepareExt4(ctx, runner, dev)
	case xfs:
		return hasXFS(dev)
	}
	return nil
}

func prepareExt4(ctx context.Context, runner run.Runner, dev string) error {
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
		return fmt.Errorf("the filesystem on %s is damaged beyond what can be repaired without a decision; %s: %w", dev, byHand(dev, ext4), err)
	}
	return err
}

// hasXFS looks for the magic number of the superblock: a mount without it says
// no more than that something is invalid.
func hasXFS(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return fmt.Errorf("look for a filesystem: %w", err)
	}
	defer f.Close()
	magic := make([]byte, len(xfsMagic))
	if _, err := f.ReadAt(magic, 0); err != nil {
		return fmt.Errorf("look for a filesystem on %s: %w", dev, err)
	}
	if string(magic) != xfsMagic {
		return fmt.Errorf("the superblock of the xfs on %s is damaged, or another filesystem is there; %s", dev, byHand(dev, xfs))
	}
	return nil
}

// Explain adds to the error of a mount what to do about a filesystem that the
// kernel finds damaged (linux: EFSCORRUPTED is EUCLEAN, EFSBADCRC is EBADMSG).
func Explain(err error, dev, fsType string) error {
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG) {
		return fmt.Errorf("the filesystem on %s is damaged; %s: %w", dev, byHand(dev, fsType), err)
	}
	return err
}

// byHand is what a person can do, by e2fsck(8) and xfs_repair(8).
func byHand(dev, fsType string) string {
	if fsType == xfs {
		return fmt.Sprintf("on the node, see what is wrong with: xfs_repair -n %s; and repair it with: xfs_repair %s", dev, dev)
	}
	return fmt.Sprintf("on the node, see what is wrong with: e2fsck -fn %s; and repair it with: e2fsck -f %s", dev, dev)
}
