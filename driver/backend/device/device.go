// Package device is the backend that gives each volume a whole disk or
// partition, for itself alone. What the volume is, and which disk, is in a
// file below the pool's path: volumes/ID.disk, the claim. It names the disk by
// what lasts (WWN, serial number, UUID of a partition), so that after a reboot
// the volume is on its own disk, whatever the kernel then calls it, and on no
// other: a disk that is away, shrunk, or there twice is not served.
//
// A disk is free for a volume if the pool's patterns find it, no claim names
// it, nobody has it, both its ends read as zeros and libblkid finds nothing on
// it. Anything else is somebody's, and shown as a problem. A claim begins with
// a mark in the last bytes of the disk, written while the disk is open for
// this process alone: whoever looks at the disk next, another pool or another
// plinth, finds it taken.
//
// A filesystem is made while the claim is in .plinth/tmp; the rename makes it a
// volume, and no volume is ever formatted. Removal moves the claim to
// .plinth/trash, wipes the disk, and deletes the claim last: then the disk is
// free again.
package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Sizes in bytes.
const (
	minDisk = 16 << 20  // smaller disks are not offered
	minExt4 = 16 << 20  // with room for a journal
	minXFS  = 300 << 20 // mkfs.xfs(8) refuses less
)

// Options configure a device backend.
type Options struct {
	Dir     string     // the pool's path, where the claims are
	Devices []string   // paths below /dev, or patterns of filepath.Glob
	Runner  run.Runner // runs mkfs, blkid and wipefs; nil takes run.Exec
	Log     *slog.Logger

	step func(operation string) error // for tests
}

// content is what a volume was made with: the name of its filesystem, or block.
type content string

const block content = "block"

// claimVersion is the version of claims that this code reads and writes.
const claimVersion = 1

// claim is the file that says which disk a volume has.
type claim struct {
	Version int     `json:"version"`
	Disk    string  `json:"disk"`  // device.Disk.Identity
	Size    int64   `json:"size"`  // bytes of the disk that the volume knows of
	Asked   int64   `json:"asked"` // bytes that were asked for
	Holds   content `json:"holds"`
	Mark    string  `json:"mark"`            // what is written in the last bytes of the disk
	UUID    string  `json:"uuid,omitempty"`  // of the filesystem that is made on it
	Taken   bool    `json:"taken,omitempty"` // the mark was on the disk, so what came after it is ours
	// Attached is the boot in which the volume was attached and not detached:
	// nothing outlives its boot.
	Attached string `json:"attached,omitempty"`
	// Scrub says that all bytes are to be overwritten before the disk is free;
	// Scrubbed is how many have been, from the start.
	Scrub    bool  `json:"scrub,omitempty"`
	Scrubbed int64 `json:"scrubbed,omitempty"`
}

// host is what the backend asks of the machine; the one seam for its tests.
// Names are relative to the pool. No method follows a symlink. What is not
// there is fs.ErrNotExist; what is no claim is volume.ErrInvalid.
type host interface {
	// Names lists the files in a directory.
	Names(dir string) ([]string, error)
	// Read reads a claim.
	Read(name string) (claim, error)
	// Write publishes a claim, durably and whole, over what was there.
	Write(name string, c claim) error
	// Rename moves a claim durably and never replaces.
	Rename(from, to string) error
	// Drop removes a claim durably; absent is nil.
	Drop(name string) error
	// Boot names this boot of the machine.
	Boot() (string, error)

	// Disks lists the disks of the machine that have an identity.
	Disks() ([]device.Disk, error)
	// Offered lists the disks that the pool's patterns find and that nobody
	// has, but for those of the identities in claimed, and says of each other
	// one that they find what is wrong with it.
	Offered(ctx context.Context, claimed map[string]bool) ([]device.Disk, []string, error)
	// Take writes the claim's mark on a disk that is still free; errTaken if
	// it is not.
	Take(ctx context.Context, d device.Disk, c claim) error
	// Format makes the claim's filesystem on a disk that was taken, with the
	// options, which mkfs.Check allows, and the root directory of s.
	Format(ctx context.Context, d device.Disk, c claim, s volume.Spec) error
	// Ours reports whether what is on a disk comes from making a volume of
	// this claim. It does not if anything else is found there as well.
	Ours(ctx context.Context, d device.Disk, c claim) (bool, error)
	// Wipe takes off what a disk is known by, and leaves it free.
	Wipe(ctx context.Context, d device.Disk) error
	// Zero makes the disk read as zeros from a byte on. After a part of it,
	// and at its end, done hears how far it got.
	Zero(ctx context.Context, d device.Disk, from int64, done func(int64) error) error
	// Idle answers volume.ErrInUse while the disk is mounted or held.
	Idle(d device.Disk) error
	// Release undoes what serving a disk may have left: it takes writes again.
	Release(d device.Disk) error
	// Space reads the filesystem mounted at path.
	Space(path string) (volume.Usage, error)
	Close() error
}

// errTaken says that a disk is not, or no longer, free.
var errTaken = errors.New("the disk is taken")

// Device is the backend.
type Device struct {
	host host
	log  *slog.Logger
	kind layout.Kind

	choosing sync.Mutex // held from looking for a free disk until a claim names it
	seen     struct {
		sync.Mutex
		problems []string // of the last look
	}
}

var (
	_ backend.Opened   = (*Device)(nil)
	_ backend.Scrubber = (*Device)(nil)
	_ backend.Reporter = (*Device)(nil)
	_ backend.Locator  = (*Device)(nil)
)

// open recovers what a cut left. A disk that is away, or in use, keeps its
// claim, and stops no other volume.
func open(ctx context.Context, h host, log *slog.Logger) (*Device, error) {
	b := &Device{host: h, log: log, kind: layout.Disk}
	for _, dir := range []string{layout.Tmp, layout.Trash} {
		names, err := h.Names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id, ours := b.kind.UnfinishedID(name)
			if !ours {
				continue
			}
			if err := b.recover(ctx, dir, id); err != nil {
				log.Warn("a disk is not free yet", "volume", id, "error", err.Error())
			}
		}
	}
	if _, err := b.Capacity(ctx); err != nil { // so that problems are known
		return nil, err
	}
	return b, nil
}

func (b *Device) recover(ctx context.Context, dir string, id volume.ID) error {
	if dir == layout.Tmp {
		return b.undo(ctx, id)
	}
	c, err := b.host.Read(b.kind.TrashPath(id))
	if err == nil && c.Scrub {
		return nil // may take hours: whoever deletes the volume asks for it again
	}
	return b.empty(ctx, id)
}

// Close lets go of the pool's directory; volumes stay attached.
func (b *Device) Close() error { return b.host.Close() }

// Abilities are both modes, and the two filesystems that it makes.
func (b *Device) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem, volume.Block}, FSTypes: []string{"ext4", "xfs"}, Thick: true, Counted: true}
}

// find finds the disk of a claim among those that the machine has now.
func (b *Device) find(c claim) (device.Disk, error) {
	disks, err := b.host.Disks()
	if err != nil {
		return device.Disk{}, err
	}
	return c.among(disks)
}

// among finds the disk of a claim.
func (c claim) among(disks []device.Disk) (device.Disk, error) {
	var found []device.Disk
	for _, d := range disks {
		if d.Identity == c.Disk {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 0:
		return device.Disk{}, fmt.Errorf("%w: its disk %s is not in this machine; put it back", volume.ErrPoolUnavailable, c.Disk)
	case len(found) > 1:
		return device.Disk{}, fmt.Errorf("%w: %s and %s both call themselves %s; take one out", volume.ErrPoolUnavailable, found[0].Path, found[1].Path, c.Disk)
	case found[0].Size < c.Size:
		return device.Disk{}, fmt.Errorf("%w: its disk %s has %d bytes and had %d; it may be another", volume.ErrPoolUnavailable, c.Disk, found[0].Size, c.Size)
	}
	return found[0], nil
}

// claims reads all claims but those that cannot be read, by where they are. A
// claim moves on from one place to the next: read in this order none is missed.
func (b *Device) claims() (whole map[volume.ID]claim, all []claim, err error) {
	whole = map[volume.ID]claim{}
	for _, dir := range []string{layout.Tmp, layout.Volumes, layout.Trash} {
		names, err := b.host.Names(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			id, ours := b.kind.UnfinishedID(name)
			if dir == layout.Volumes {
				id, ours = b.kind.ID(name)
			}
			if !ours {
				continue
			}
			c, err := b.host.Read(dir + "/" + name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, volume.ErrInvalid) {
				continue // moved on, or no claim: the mark on its disk protects that
			}
			if err != nil {
				return nil, nil, err
			}
			all = append(all, c)
			if dir == layout.Volumes {
				whole[id] = c
			}
		}
	}
	return whole, all, nil
}
