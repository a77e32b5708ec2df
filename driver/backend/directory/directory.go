// Package directory is the backend that keeps each volume as a directory,
// volumes/ID, limited by a project quota of XFS or ext4.
//
// The project is allocated from a range that is Plinth's (see allocate), never
// computed, and checked to be nobody's before it is used. It is recorded on the
// directory's own inode and found there again, so it cannot be lost or mixed
// up. Sizes are rounded up to a multiple of 4096 bytes, the unit in which XFS
// keeps limits; Info.Size tells the result.
//
// Two kinds of consumer can get past a limit: on ext4 a process with
// CAP_SYS_RESOURCE in the initial user namespace (a privileged container), for
// which the kernel ignores quotas; and a process of the initial user namespace
// that gives a file of its own another project on purpose. Neither can on
// btrfs or in an image.
//
// A snapshot is a directory, snapshots/ID, copied from the volume file by file,
// and so is a clone. On XFS each file is reflinked, at one instant, and shares
// its bytes with its source; elsewhere the bytes are copied, which takes as
// long as they are many. The tree as a whole is not copied at one instant:
// files written meanwhile are from different moments, one that is moved may be
// missing or there twice. Whoever needs one moment stops writing, or uses
// btrfs or an image. The call returns when the copy is whole. A copy has a
// project of its own; the quota of XFS counts shared bytes to everyone who
// shares them. Inode flags (immutable, …) are not copied.
//
// A volume may have a soft limit, a part of its size that it may exceed for the
// grace time only: then nothing more goes in until it is below again. The time
// runs from when it rose above (for each volume alone), and how long it is the
// kernel keeps once for all project quotas of a filesystem. It may have a limit
// on inodes, of which its root is one. A limit below what it holds takes
// nothing away; nothing new goes in until enough is gone.
//
// With QuotaNone nothing limits a volume: Capacity.Enforced is false,
// Info.Size 0 and Info.Allocated -1, and Usage walks the volume.
package directory

import (
	"time"

	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/beneath"
)

// Quota says what limits the volumes of a pool.
type Quota string

// The two choices; empty is QuotaProject.
const (
	QuotaProject Quota = "project"
	QuotaNone    Quota = "none"
)

// Sizes in bytes.
const (
	granularity = 4096
	minVolume   = 64 << 10
)

// Options configure a directory backend.
type Options struct {
	Dir   string // the pool's path
	Quota Quota
	// Grace is for how long soft limits may be exceeded, in whole seconds; 0
	// leaves it as it is. The kernel has one time for all project quotas of a
	// filesystem, so of two pools on one the last that was opened decides.
	Grace time.Duration

	step tree.Step // for tests
}

// Directory is the backend.
type Directory struct {
	*tree.Tree
	dir    *beneath.Dir
	keeper tree.Keeper
	files  tree.Files
	step   tree.Step
}
