// Package pool keeps named pools of volumes: what they are configured to be,
// the marker that says which disk is which, the records of their volumes, the
// reservations, and a backend that does the work.
package pool

import (
	"fmt"
	"math"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The backends that a pools file can name.
const (
	BackendAuto      = "auto"
	BackendBtrfs     = "btrfs"
	BackendDirectory = "directory"
	BackendImage     = "image"
	BackendDevice    = "device"
	BackendMemory    = "memory" // tests only
)

// The quotas of a directory pool.
const (
	QuotaProject = "project" // the filesystem enforces each volume's size
	QuotaNone    = "none"    // nothing does
)

// The reasons for which a pool does not serve, as its status shows them.
const (
	ReasonConfig     = "InvalidConfig"    // the pools file is wrong about it
	ReasonDuplicate  = "DuplicateName"    // an earlier pool has the name
	ReasonOverlap    = "OverlappingPaths" // its path and an earlier pool's are within each other
	ReasonMissing    = "PathMissing"
	ReasonNotDir     = "NotADirectory"
	ReasonSymlink    = "PathIsSymlink"
	ReasonNotMounted = "NotMounted"
	ReasonNoMarker   = "MarkerMissing" // it had a marker once
	ReasonForeign    = "ForeignDisk"   // the marker is another pool's
	ReasonLocked     = "Locked"        // another process serves it
	ReasonBackend    = "BackendFailed"
	ReasonIO         = "IOError"
	ReasonRemoved    = "Removed" // from the pools file, while it had volumes
)

// Config is a pools file.
type Config struct {
	Pools   []PoolConfig // in the order of the file
	Refused []Refusal    // the pools that are not in Pools, and why
}

// PoolConfig is one pool as it is configured.
type PoolConfig struct {
	Name         string        // a DNS label
	Path         string        // absolute and clean
	Backend      string        // one of the Backend constants
	Quota        string        // one of the Quota constants; for directories
	QuotaGrace   time.Duration // how long soft limits may be exceeded; 0 leaves what the filesystem has
	Reserve      Reserve
	Overcommit   float64  // at least 1
	Shared       bool     // the same filesystem at the same path on every node
	RequireMount bool     // Path itself has to be a mount point
	Devices      []string // for devices: paths below /dev, or patterns of filepath.Glob
	Line         int      // where it begins in the file; 0 if it does not come from one
}

// Refusal is a pool that is not served because of its configuration.
type Refusal struct {
	Name, Path string // as far as they could be read
	Line       int    // of the fault
	Reason     string // one of the Reason constants
	Message    string // the fault and the way out

	known string // the UUID of a pool that was served before
}

func (r Refusal) Error() string { return atLine(r.Line, r.Message) }

// Reserve is the part of a filesystem that is never provisioned.
type Reserve struct {
	Bytes   int64
	Percent float64 // of the filesystem's size; at most one of the two is set
}

// Of gives the bytes to keep back of a filesystem of total bytes.
func (r Reserve) Of(total int64) int64 {
	return r.Bytes + int64(math.Ceil(float64(total)*r.Percent/100))
}

func (c PoolConfig) fault(reason, format string, args ...any) *Fault {
	return &Fault{Pool: c.Name, Line: c.Line, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Fault says why a pool does not serve. It wraps volume.ErrPoolUnavailable.
type Fault struct {
	Pool    string
	Line    int // of the pool in the pools file; 0 if it has none
	Reason  string
	Message string
}

func (f *Fault) Error() string { return fmt.Sprintf("pool %s: %s", f.Pool, f.text()) }

func (f *Fault) text() string { return atLine(f.Line, f.Message) }

func atLine(line int, message string) string {
	if line == 0 {
		return message
	}
	return fmt.Sprintf("line %d: %s", line, message)
}

// Unwrap makes a fault an ErrPoolUnavailable.
func (f *Fault) Unwrap() error { return volume.ErrPoolUnavailable }
