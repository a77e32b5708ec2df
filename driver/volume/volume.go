package volume

import (
	"fmt"
	"time"
)

// Mode says how a consumer sees a volume: as a filesystem or a block device.
type Mode string

// The two modes of a volume, spelt as in a Kubernetes volumeMode.
const (
	Filesystem Mode = "Filesystem"
	Block      Mode = "Block"
)

// AccessMode is who may use a volume at the same time, spelt as Kubernetes does.
type AccessMode string

// The access modes (CSI 1.13, VolumeCapability.AccessMode, maps onto them).
const (
	ReadWriteOnce    AccessMode = "ReadWriteOnce"    // pods of one node
	ReadWriteOncePod AccessMode = "ReadWriteOncePod" // one pod
	ReadWriteMany    AccessMode = "ReadWriteMany"    // pods of many nodes
	ReadOnlyMany     AccessMode = "ReadOnlyMany"     // pods of many nodes, none writes
)

// Spec is what a backend needs to know to make a volume. It is recorded
// before anything is made, and never changes but for Size, which only grows.
type Spec struct {
	ID     ID     `json:"id"`
	Size   int64  `json:"size"`             // bytes, the hard limit
	Mode   Mode   `json:"mode"`             // Filesystem or Block
	FSType string `json:"fsType,omitempty"` // ext4 or xfs where the backend formats; else empty
	// Thick asks for the bytes to be allocated when the volume is made.
	Thick bool `json:"thick,omitempty"`
	// MkfsOptions are arguments for mkfs, of those that the backend allows.
	MkfsOptions []string `json:"mkfsOptions,omitempty"`
	// OnDelete says what becomes of the bytes; "" is Delete.
	OnDelete OnDelete `json:"onDelete,omitempty"`
	// Root says how the root directory is made; not for Block.
	Root Root `json:"root,omitzero"`
	// Attributes may change in a volume's life (Manager.Modify).
	Attributes Attributes `json:"attributes,omitzero"`
}

// Root says how the root directory of a new volume is made. Its zero value is
// how a backend makes it: root's, for all to enter and read. What is restored
// or cloned has the root directory of its source, and nobody sets it again.
type Root struct {
	Mode uint32 `json:"mode,omitempty"` // permissions, and the bits 02000 and 01000; 0 leaves it as it is made
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
}

// OnDelete says what becomes of a volume's bytes when it is deleted.
type OnDelete string

// What can become of them, spelt as in a StorageClass.
const (
	Delete OnDelete = "delete" // freed
	Scrub  OnDelete = "scrub"  // made unreadable as far as the device can, then freed
)

// Attributes are what a VolumeAttributesClass may change of a volume.
type Attributes struct {
	Inodes    int64 `json:"inodes,omitempty"`    // the most inodes it may have; 0 is no limit
	SoftLimit int   `json:"softLimit,omitempty"` // percent of Size that may be exceeded for the pool's grace time only; 0 is none
}

// Check answers ErrInvalid for attributes that no volume can have.
func (a Attributes) Check() error {
	if a.Inodes < 0 {
		return fmt.Errorf("%w: a limit of %d inodes; 0 is no limit", ErrInvalid, a.Inodes)
	}
	if a.SoftLimit < 0 || a.SoftLimit >= 100 {
		return fmt.Errorf("%w: a soft limit of %d percent; from 1 to 99 percent of the volume's size, 0 is none", ErrInvalid, a.SoftLimit)
	}
	return nil
}

// Info is what a backend finds on disk.
type Info struct {
	ID        ID
	Size      int64 // bytes, the limit that holds now; 0 where the pool has none (quota: none)
	Allocated int64 // bytes of the pool that this volume alone holds; -1 where that is not known cheaply
}

// Usage is how full a volume is, counting this volume alone.
type Usage struct {
	TotalBytes, UsedBytes, AvailableBytes    int64
	TotalInodes, UsedInodes, AvailableInodes int64 // all zero where the backend does not count inodes
}

// Capacity is the state of the filesystem or disk below a backend, in bytes.
type Capacity struct {
	Total int64
	Free  int64 // usable by root without eating into any reservation of the filesystem itself
	// Enforced is false where nothing stops a volume from outgrowing its size.
	Enforced bool
	// MaxVolume and MinVolume bound the size of one volume; 0 is no bound.
	MaxVolume, MinVolume int64
	// Whole says that a volume takes a whole disk, whatever its size: all of
	// Free can be provisioned, and LargestFree is the largest volume now.
	Whole       bool
	LargestFree int64
}

// Request asks for a volume in a pool.
type Request struct {
	Spec                          // ID "" takes IDForName(Name); Size is the least that will do
	LimitBytes  int64             // the most that will do, in bytes; 0 is no bound
	Name        string            // the requester's name for it; the idempotency token
	Pool        string            // one name, or several with commas; "" is any; of several, the one with most space that fits
	Nodes       []string          // where it may live, best first; empty is any node
	AccessModes []AccessMode      // every mode that must be honoured; empty is ReadWriteOnce
	Labels      map[string]string // for people: claim, namespace, class; never interpreted
	From        Content           // what it starts with; the zero value is empty
	Path        Path              // where it is to be found below the pool's paths, once it is exposed; "" is nowhere
	Import      Path              // the directory below the pool that becomes the volume; "" makes a new one
	Ephemeral   bool              // made for one pod and deleted with it
	Target      string            // where an ephemeral one is published; "" for others
}

// Content is what a new volume starts with. At most one of the two is set.
type Content struct {
	Snapshot ID `json:"snapshot,omitempty"`
	Volume   ID `json:"volume,omitempty"`
}

// Volume is a volume as its record tells it.
type Volume struct {
	Spec
	Name        string
	Pool        string
	Node        string // where it lives; "" for a shared pool: every node that has the pool
	AccessModes []AccessMode
	Labels      map[string]string
	From        Content
	Path        Path // see Request
	Ephemeral   bool
	Target      string // where it is published, if it is ephemeral
	CreatedAt   time.Time
}

// SnapshotRequest asks for a snapshot of one volume.
type SnapshotRequest struct {
	ID     ID                // "" takes IDForName(Name)
	Name   string            // the requester's name for it; the idempotency token
	Volume ID                // of what
	Labels map[string]string // for people; never interpreted
}

// Snapshot is a snapshot as its record tells it. IDs of snapshots are of their
// own kind: a volume may have the same.
type Snapshot struct {
	ID        ID
	Name      string
	Volume    ID // which may be gone
	Group     ID // of the group it was taken in; "" if alone
	Pool      string
	Node      string // where it lives; "" for a shared pool
	Mode      Mode
	FSType    string
	Size      int64 // bytes; the least that a volume made of it has
	Labels    map[string]string
	CreatedAt time.Time // whose content it has
	Ready     bool      // false while its bytes are still being copied
	Copied    int64     // bytes copied so far, while it is not ready
}

// GroupRequest asks for snapshots of several volumes of one node, taken
// together.
type GroupRequest struct {
	ID      ID     // "" takes IDForName(Name)
	Name    string // the requester's name for it; the idempotency token
	Volumes []ID
	Labels  map[string]string
}

// Group is snapshots that were taken together.
type Group struct {
	ID        ID
	Name      string
	Snapshots []Snapshot // one of each volume
	CreatedAt time.Time
	Ready     bool // all of them are
}

// Health says whether a volume can be used where it is.
type Health struct {
	ID      ID
	State   HealthState
	Reason  string // one CamelCase word; "" of a healthy one
	Message string // for people: what is wrong and the way out
}

// HealthState is how well a volume is (CSI 1.13, VolumeHealthErrorType).
type HealthState string

// The states of a volume's health.
const (
	Healthy      HealthState = ""
	Degraded     HealthState = "Degraded"     // it serves, and something about it is unfinished
	Inaccessible HealthState = "Inaccessible" // it cannot be used, and its data may be whole
	DataLost     HealthState = "DataLost"     // its record is there and its data is not
)

// Space is what can be provisioned for a request, in bytes.
type Space struct {
	Available int64 // the sum over the pools that could serve it
	Max       int64 // the largest single volume
	Min       int64 // the smallest single volume; 0 is no bound
}

// Use is how one consumer is to see a volume on a node.
type Use struct {
	Mode       Mode
	AccessMode AccessMode
	FSType     string   // what the consumer expects to find; "" is whatever there is
	Options    []string // mount options, as a StorageClass lists them
	ReadOnly   bool
}

// PoolState says whether a pool serves.
type PoolState string

// The states of a pool.
const (
	PoolReady       PoolState = "Ready"
	PoolUnavailable PoolState = "Unavailable" // refused by its configuration or its identity guard
)

// PoolStatus is a pool as its node reports it. Sizes are bytes.
type PoolStatus struct {
	Name    string
	Backend string // the backend in use, after auto was resolved; "" if none
	Path    string
	UUID    string // from the marker; "" if not set up
	Shared  bool
	State   PoolState
	Reason  string // one CamelCase word, for conditions
	Message string // for people: the fault and the way out
	// Total is the size of the filesystem, Free what of it nothing holds,
	// Reserved what volumes have been promised, Available what can really be
	// provisioned now, MaxVolume the largest single volume.
	Total, Free, Reserved, Available, MaxVolume int64
	Volumes                                     int
	Modes                                       []Mode   // what its volumes can be
	FSTypes                                     []string // what the backend can format; empty where it does not
	Enforced                                    bool
	Abilities                                   []Ability // beyond these, what only some pools can do
}

// Ability is something that only some pools can do for a volume.
type Ability string

// The abilities.
const (
	AbleThick      Ability = "Thick"      // allocates the bytes when a volume is made
	AbleScrub      Ability = "Scrub"      // makes the bytes of a deleted volume unreadable
	AbleAttributes Ability = "Attributes" // limits inodes, and has soft limits
)
