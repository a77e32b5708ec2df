// Package btrfs is the backend that keeps each volume as a btrfs subvolume:
// volumes/ID, limited by a quota group.
//
// With simple quotas (Linux 6.7 and later, switched on when the pool is opened)
// the group that is limited is not the subvolume's own but one at a level that
// is Plinth's alone (20556/N for subvolume N), which the subvolume is put into:
// a subvolume that a consumer makes inside the volume joins it, so the limit
// holds for them together. On a filesystem that has full quotas on already, or
// an older kernel, the subvolume's own group is limited, and a consumer that
// makes subvolumes escapes the limit by them.
//
// A snapshot is a read-only subvolume, snapshots/ID, and is taken and restored
// at once, whatever it holds. Simple quotas charge what a snapshot shares to
// the volume that wrote it, so a clone may write as much as its size beside
// what it shares, and what a volume gave up but a snapshot keeps still counts
// against the volume. Full quotas count all that a volume references.
//
// Metadata of the volume counts, so a volume of many tiny files is full before
// their bytes add up to its size. What a group holds is known as of the last
// transaction, at most 30 seconds ago; the limit itself holds at once.
package btrfs

import "github.com/plinth-csi/plinth/driver/backend/tree"

// minVolume is the least size in bytes: below it the metadata of an empty
// volume is a good part of its size.
const minVolume = 1 << 20

// Options configure a btrfs backend.
type Options struct {
	Dir string // the pool's path

	step tree.Step // for tests
}

// Btrfs is the backend.
type Btrfs struct {
	*tree.Tree
	machine *machine
	step    tree.Step
}
