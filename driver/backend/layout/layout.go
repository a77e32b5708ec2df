// Package layout is what the backends share of a pool on disk
// (docs/design.md, "What a pool looks like on disk"): where volumes are, where
// they are made, where they wait to be freed, and by which names a backend
// knows its own. Anything else in those places is a stranger's and stays.
package layout

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/plinth-csi/plinth/driver/host/mkfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

// The places, relative to the pool's path.
const (
	Volumes = "volumes"
	// Snapshots is made with the first of them.
	Snapshots = "snapshots"
	Private   = ".plinth"
	Tmp       = ".plinth/tmp"
	Trash     = ".plinth/trash"
)

// What is before an ID in the names of what is being made or freed.
const (
	making    = "volume-"
	capturing = "snapshot-"
)

// Kind is how a backend's volumes are named: a directory has no suffix.
type Kind string

// The kinds of volumes on disk.
const (
	Directory Kind = ""
	Image     Kind = ".img"
	Disk      Kind = ".disk" // a file that says which disk it is
)

// Path is where a whole volume is.
func (k Kind) Path(id volume.ID) string { return path.Join(Volumes, string(id)+string(k)) }

// TmpPath is where a volume is made before it is renamed to Path.
func (k Kind) TmpPath(id volume.ID) string { return path.Join(Tmp, making+string(id)+string(k)) }

// TrashPath is where a volume that is no more waits to be freed.
func (k Kind) TrashPath(id volume.ID) string { return path.Join(Trash, making+string(id)+string(k)) }

// ID reads the ID of a volume from a name in Volumes.
func (k Kind) ID(name string) (volume.ID, bool) {
	bare, ok := strings.CutSuffix(name, string(k))
	if !ok {
		return "", false
	}
	id, err := volume.ParseID(bare)
	return id, err == nil
}

// UnfinishedID reads the ID of a volume from a name in Tmp or Trash.
func (k Kind) UnfinishedID(name string) (volume.ID, bool) {
	bare, ok := strings.CutPrefix(name, making)
	if !ok {
		return "", false
	}
	return k.ID(bare)
}

// SnapshotPath is where a whole snapshot is.
func (k Kind) SnapshotPath(id volume.ID) string { return path.Join(Snapshots, string(id)+string(k)) }

// SnapshotTmpPath is where a snapshot is made before it is renamed.
func (k Kind) SnapshotTmpPath(id volume.ID) string {
	return path.Join(Tmp, capturing+string(id)+string(k))
}

// SnapshotTrashPath is where a snapshot that is no more waits to be freed.
func (k Kind) SnapshotTrashPath(id volume.ID) string {
	return path.Join(Trash, capturing+string(id)+string(k))
}

// Unfinished reports whether a name in Tmp or Trash is of a volume or
// snapshot of this kind.
func (k Kind) Unfinished(name string) bool {
	if _, ours := k.UnfinishedID(name); ours {
		return true
	}
	bare, ok := strings.CutPrefix(name, capturing)
	if ok {
		_, ok = k.ID(bare)
	}
	return ok
}

// Check answers ErrInvalid for an ID that must not become part of a path.
func Check(id volume.ID) error {
	_, err := volume.ParseID(string(id))
	return err
}

// CheckSize answers ErrOutOfRange for a size that is not from least to most
// bytes; most 0 is no bound.
func CheckSize(size, least, most int64) error {
	if size < least {
		return fmt.Errorf("%w: %d bytes; the least is %d", volume.ErrOutOfRange, size, least)
	}
	if most > 0 && size > most {
		return fmt.Errorf("%w: %d bytes; the most is %d", volume.ErrOutOfRange, size, most)
	}
	return nil
}

// Prepare makes the places of a pool, below a directory that mkdir works in
// and that leaves alone what is there.
func Prepare(mkdir func(name string, perm fs.FileMode) error) error {
	for _, dir := range []string{Volumes, Private, Tmp, Trash} {
		if err := mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// CheckDirectory answers ErrUnsupported for a spec that a backend which gives
// directories cannot serve.
func CheckDirectory(s volume.Spec) error {
	switch {
	case s.Mode != volume.Filesystem:
		return fmt.Errorf("%w: mode %q; this pool gives directories, so %s only (raw Block volumes are the image backend's)",
			volume.ErrUnsupported, s.Mode, volume.Filesystem)
	case s.FSType != "":
		return fmt.Errorf("%w: fsType %q; this pool gives directories of its own filesystem", volume.ErrUnsupported, s.FSType)
	case s.Thick:
		return fmt.Errorf("%w: thick volumes (the image backend has them)", volume.ErrUnsupported)
	case len(s.MkfsOptions) > 0:
		return fmt.Errorf("%w: mkfs options %q; this pool gives directories, which are not formatted", volume.ErrUnsupported, s.MkfsOptions)
	}
	return nil
}

// CheckFormat answers ErrUnsupported for mkfs options of a raw Block volume,
// ErrInvalid for those that fsType, which a backend makes for the spec, does
// not take.
func CheckFormat(s volume.Spec, fsType string) error {
	if len(s.MkfsOptions) == 0 {
		return nil
	}
	if s.Mode == volume.Block {
		return fmt.Errorf("%w: mkfs options %q for a %s volume, which is not formatted", volume.ErrUnsupported, s.MkfsOptions, s.Mode)
	}
	if err := mkfs.Check(fsType, s.MkfsOptions); err != nil {
		return fmt.Errorf("%w: %w", volume.ErrInvalid, err)
	}
	return nil
}

// Scrubs answers ErrUnsupported where the device below a pool's filesystem
// would not hear which blocks are free. To overwrite them instead is no promise:
// flash, and a filesystem that copies on write, put new bytes elsewhere.
func Scrubs(host interface{ Trims() (bool, error) }) error {
	trims, err := host.Trims()
	if err == nil && !trims {
		err = fmt.Errorf("%w: the device below does not discard; a pool with backend: device overwrites whole disks", volume.ErrUnsupported)
	}
	return err
}
