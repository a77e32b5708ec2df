// Package btrfs is the backend that keeps each volume as a btrfs subvolume:
// volumes/ID, limited by a quota group.
//
// The group that is limited is not the subvolume's own but one at a level that
// is Plinth's alone (20556/N for subvolume N), which the subvolume is put
// into. With simple quotas (Linux 6.7 and later, switched on when the pool is
// opened) a subvolume that a consumer makes inside the volume joins it, so the
// limit holds for them together. On a filesystem that has full quotas on, or
// an older kernel, it does not: there a consumer that makes subvolumes escapes
// the limit by them.
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
}
