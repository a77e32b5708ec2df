// Package backend states what a pool asks of the thing that keeps its
// volumes. The implementations are in the folders below, and every one of
// them passes the one suite in backendtest.
package backend

import (
	"context"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Backend keeps volumes below one directory.
//
// Every method may be called again after a crash inside it and then finishes
// or undoes what was begun; opening a backend recovers unfinished work before
// it returns. Methods on different volumes may run at the same time; the pool
// serialises those on one volume. Errors wrap the sentinels of driver/volume.
// No method follows a symlink, crosses a mount or leaves the directory.
type Backend interface {
	// Ensure makes the volume, resumes an unfinished one, or grows it to
	// s.Size. It never shrinks and never formats a volume that is there:
	// ErrOutOfRange below the present size, ErrUnsupported for a mode or
	// fsType the backend does not have.
	Ensure(ctx context.Context, s volume.Spec) (volume.Info, error)
	// Remove deletes the volume and returns once its bytes are free. A volume
	// that is not there is no error. ErrInUse while it is attached or while
	// anything is mounted at or below it.
	Remove(ctx context.Context, id volume.ID) error
	// Get reads one volume from disk; ErrNotFound if it is not whole.
	Get(ctx context.Context, id volume.ID) (volume.Info, error)
	// List reads all whole volumes from disk, never from memory.
	List(ctx context.Context) ([]volume.Info, error)
	// Attach makes the volume ready to mount and says what to mount. Calling
	// it again returns the same source.
	Attach(ctx context.Context, id volume.ID) (Source, error)
	// Detach undoes Attach; a volume that is not attached is no error.
	Detach(ctx context.Context, id volume.ID) error
	// Usage counts the bytes and inodes of this volume alone. mountedAt is
	// where its filesystem is mounted, or "" if it is not; only a backend
	// that formats needs it.
	Usage(ctx context.Context, id volume.ID, mountedAt string) (volume.Usage, error)
	// Capacity reads the filesystem below.
	Capacity(ctx context.Context) (volume.Capacity, error)
}

// Opened is a backend as its constructor returns it.
type Opened interface {
	Backend
	// Abilities says what the backend serves; it does not change while open.
	Abilities() Abilities
	// Close lets go of the directory; volumes stay attached.
	Close() error
}

// Snapshotter is a backend that can copy a volume as it was at one point in
// time. IDs of snapshots are of their own kind: a snapshot and a volume may
// have the same. What is said of Backend holds here too: every method may be
// called again after a crash inside it, and absence on removal is no error.
type Snapshotter interface {
	// Snapshot makes the snapshot id of the volume src, or finds it made; it
	// is whole when it returns. ErrNotFound without the volume.
	Snapshot(ctx context.Context, src, id volume.ID, p Progress) (Snapshot, error)
	// RemoveSnapshot returns once the bytes that only it held are free.
	RemoveSnapshot(ctx context.Context, id volume.ID) error
	// GetSnapshot reads one from disk; ErrNotFound if it is not whole.
	GetSnapshot(ctx context.Context, id volume.ID) (Snapshot, error)
	// ListSnapshots reads all from disk.
	ListSnapshots(ctx context.Context) ([]Snapshot, error)
	// Restore makes the volume s with the content of a snapshot, of at least
	// its size: ErrOutOfRange if smaller. A volume of that ID that is there is
	// taken for the one made before, and grown if s asks for more.
	Restore(ctx context.Context, id volume.ID, s volume.Spec, p Progress) (volume.Info, error)
	// Clone is Restore from a volume as it is now.
	Clone(ctx context.Context, src volume.ID, s volume.Spec, p Progress) (volume.Info, error)
}

// Progress is told how many bytes a copy has moved; nil is nobody. A backend
// calls it first with 0, when it is about to move them and has refused
// whatever can be refused at once; where a copy shares its bytes at one
// instant it does not call it. It may take its time, and its error ends the
// copy. From the first call on, the source may be mounted and unmounted.
type Progress func(ctx context.Context, copied int64) error

// Report tells p, if there is one.
func (p Progress) Report(ctx context.Context, copied int64) error {
	if p == nil {
		return nil
	}
	return p(ctx, copied)
}

// Snapshot is what a backend finds on disk of a snapshot.
type Snapshot struct {
	ID        volume.ID
	Size      int64 // bytes, the size of the volume when it was taken; the least for a restore
	Allocated int64 // bytes that removing it would free; -1 where that is not known cheaply
	// Held is how many bytes it holds, shared or not, and so the most that it
	// can come to hold alone; -1 where that is not known cheaply.
	Held int64
}

// Freezer is a Snapshotter that can hold volumes still, so that several are
// captured as they are at one instant.
type Freezer interface {
	// Freezes is nil if it can where the pool is, else it says why not, and
	// what can, and wraps ErrUnsupported.
	Freezes() error
	// Prepare begins the snapshot id of the volume src: it does what takes
	// time, and refuses what can be refused, while nothing is frozen. ErrInUse
	// if src is used in a way that cannot be held still. The caller keeps src
	// from being mounted, unmounted, removed and grown until Close.
	Prepare(ctx context.Context, src, id volume.ID) (Capture, error)
}

// Capture is a snapshot that is being taken by the calls below in their order,
// and by Close at any time. RemoveSnapshot removes what is not finished.
type Capture interface {
	// Freeze stops all writing to the volume, or makes sure that nobody can
	// begin to write. A process that ends now leaves it frozen, and opening
	// the backend thaws it. ErrBusy if somebody else has frozen it.
	Freeze() error
	// Cut takes the content at one instant. It moves no bytes.
	Cut() error
	// Thaw lets writing go on. It may be called at any time, from another
	// goroutine too, and again; a Freeze that comes later fails. It is an
	// error if somebody else has thawed it meanwhile.
	Thaw() error
	// Finish makes the snapshot whole and durable.
	Finish(ctx context.Context) (Snapshot, error)
	// Close thaws the volume and lets go of everything.
	Close() error
}

// Scrubber is a backend that can make what a volume held unreadable when it
// removes it.
type Scrubber interface {
	// Scrubs is nil if it can where the pool is, else it says why not and
	// wraps ErrUnsupported.
	Scrubs() error
	// Scrub is Remove, and returns once nobody can read through the pool, its
	// filesystem or its device what the volume held. It may be called again,
	// also for a volume that Remove or a cut Scrub has already taken away.
	Scrub(ctx context.Context, id volume.ID) error
}

// Importer is a backend that can make a directory of the pool's filesystem a
// volume as it is, and a volume such a directory again. Names are paths below
// the pool; a name outside, or in one of the pool's own places, is for the pool
// to refuse. Both leave what is in the directory as it is, and replace it at
// one instant: who looks for it by its former name finds it at all times.
type Importer interface {
	// Imports is nil if it can where the pool is, else it says why not and
	// wraps ErrUnsupported.
	Imports() error
	// Import makes the directory name the volume s, and a symlink to it of the
	// name. It finishes one that was cut. ErrInvalid if name is no directory,
	// ErrInUse while it or anything below it is mounted; nothing has changed
	// then. That it holds no more than s.Size the caller has seen.
	Import(ctx context.Context, name string, s volume.Spec) (volume.Info, error)
	// Release takes the limits off a volume and makes it the directory name:
	// in place of such a symlink, or where nothing is, else ErrExists. ErrInUse
	// while it is mounted. It finishes one that was cut, and undoes a cut
	// Import; without the volume there is nothing to do.
	Release(ctx context.Context, id volume.ID, name string) error
}

// Reporter is a backend that knows what keeps a part of its pool from use.
type Reporter interface {
	// Problems has a line for each: the fault and the way out.
	Problems(ctx context.Context) []string
}

// Locator is a backend whose volumes are on devices.
type Locator interface {
	// Devices are the devices of the volumes that are attached now, by volume.
	// It attaches nothing and runs no command.
	Devices(ctx context.Context) (map[volume.ID]string, error)
}

// Source is what an attached volume offers to mount. Exactly one of Dir and
// Device is set.
type Source struct {
	Dir    string // a directory to bind
	Device string // a block device to hand over (Block) or to mount (Filesystem)
	FSType string // with Device and mode Filesystem: the filesystem on it
}

// Abilities is what a backend can serve; it does not change while open.
type Abilities struct {
	Modes   []volume.Mode
	FSTypes []string // what it can format; empty where it gives directories
	Thick   bool     // it makes volumes whose bytes are allocated
	// Attributes says that it holds volumes to volume.Attributes, and changes
	// them by Ensure.
	Attributes bool
	Sharing    Sharing
	// Counted says that Usage reads what the kernel or a filesystem counts, and
	// takes no longer for a volume that holds much.
	Counted bool
}

// Sharing is what copies (snapshots, what is restored or cloned) and their
// sources have in common, and how that is counted.
type Sharing int

// The kinds of sharing.
const (
	// SharesNothing: a copy has bytes of its own.
	SharesNothing Sharing = iota
	// SharesCounted: what is shared counts in the limit and as Allocated of
	// everyone who shares it.
	SharesCounted
	// SharesApart: what is shared counts in everyone's limit, and as Allocated
	// of nobody.
	SharesApart
	// SharesFree: what is shared counts in the limit and as Allocated of the
	// one volume that wrote it. A copy may take its whole size beside it.
	SharesFree
)
