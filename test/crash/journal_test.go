package crash

import (
	"maps"
	"slices"
)

// op is one thing that a worker asks for. Kinds that end in "volume" and so on
// are named after the calls of CSI.
type op struct {
	Worker int    `json:"worker"`
	Kind   kind   `json:"kind"`
	ID     string `json:"id"`             // of the volume or snapshot
	Size   int64  `json:"size,omitempty"` // bytes, of create and expand
	Block  bool   `json:"block,omitempty"`
	FSType string `json:"fsType,omitempty"`
	From   string `json:"from,omitempty"` // of create: a snapshot or, with Clone, a volume; of snapshot: the volume
	Clone  bool   `json:"clone,omitempty"`
	Slot   int    `json:"slot,omitempty"` // of write
	Seed   uint64 `json:"seed,omitempty"` // of write: what the slot then holds
}

type kind string

const (
	create     kind = "create"
	remove     kind = "remove"
	expand     kind = "expand"
	stage      kind = "stage"
	publish    kind = "publish"
	unpublish  kind = "unpublish"
	unstage    kind = "unstage"
	write      kind = "write"
	snapshot   kind = "snapshot"
	unsnapshot kind = "unsnapshot"
	reboot     kind = "reboot" // of no worker: the machine lost power, and its mounts
)

// entry is a line of the journal.
type entry struct {
	Phase phase `json:"phase"`
	Op    op    `json:"op"`
}

type phase string

const (
	begun   phase = "begun"
	done    phase = "done"    // acknowledged
	refused phase = "refused" // for a reason that is no fault; nothing has changed
)

// journal keeps entries where a cut cannot reach them. record returns once it
// has.
type journal interface {
	record(e entry) error
}

// slotSize is how many bytes a slot of a volume holds: a file, or a stretch of
// a block device.
const slotSize = 32 << 10

// How much a worker has at a time.
const (
	slots        = 6 // of a volume
	maxVolumes   = 3
	maxSnapshots = 2
)

// metadata is how many bytes a volume's or snapshot's metadata takes at most.
const metadata = 1 << 20

// anything is what a slot holds whose write was cut.
const anything uint64 = 1

// volumeState is what is known of a volume.
type volumeState struct {
	made              op   // what it was created with
	there             bool // acknowledged and not deleted
	size              int64
	beside            int64          // bytes that it may hold beyond its size: those it shares
	slots             map[int]uint64 // by what seed each was written
	staged, published bool
	pending           *op // begun, and cut
}

// kept is how many bytes one volume holds at most with all that its snapshots
// and copies have kept of what it replaced.
const kept = (1 + maxVolumes + maxSnapshots) * (slots*slotSize + metadata)

// shares is how many bytes a copy of the volume shares at most.
func (v *volumeState) shares() int64 { return min(v.size, kept) + v.beside }

// snapshotState is what is known of a snapshot.
type snapshotState struct {
	source  volumeState // as the volume was
	there   bool
	pending *op
}

// model is what the journal tells of one worker's volumes and snapshots.
type model struct {
	volumes   map[string]*volumeState
	snapshots map[string]*snapshotState
}

func newModel() *model {
	return &model{volumes: map[string]*volumeState{}, snapshots: map[string]*snapshotState{}}
}

// apply follows the journal by one entry.
func (m *model) apply(e entry) {
	o := e.Op
	switch o.Kind {
	case reboot:
		for _, v := range m.volumes {
			v.staged, v.published = false, false
			if v.pending != nil && slices.Contains([]kind{stage, publish, unpublish, unstage, write}, v.pending.Kind) {
				v.pending = nil // whoever asked is gone, too
			}
		}
	case snapshot, unsnapshot:
		m.applySnapshot(e)
	default:
		m.applyVolume(e)
	}
}

func (m *model) applyVolume(e entry) {
	o := e.Op
	v := m.volumes[o.ID]
	if e.Phase == begun {
		if v == nil {
			v = &volumeState{made: o, slots: map[int]uint64{}}
			m.volumes[o.ID] = v
		}
		v.pending = &o
		if o.Kind == write {
			v.slots[o.Slot] = anything
		}
		return
	}
	v.pending = nil
	if e.Phase == refused {
		if !v.there {
			delete(m.volumes, o.ID)
		}
		return
	}
	switch o.Kind {
	case create:
		v.there, v.size, v.slots = true, o.Size, map[int]uint64{}
		if s := m.source(o); s != nil {
			v.slots, v.beside = maps.Clone(s.slots), s.shares()
		}
	case remove:
		delete(m.volumes, o.ID)
	case expand:
		v.size = o.Size
	case stage:
		v.staged = true
	case unstage:
		v.staged = false
	case publish:
		v.published = true
	case unpublish:
		v.published = false
	case write:
		v.slots[o.Slot] = o.Seed
	}
}

func (m *model) applySnapshot(e entry) {
	o := e.Op
	s := m.snapshots[o.ID]
	switch {
	case e.Phase == begun && s == nil:
		source := *m.volumes[o.From]
		source.slots = maps.Clone(source.slots)
		m.snapshots[o.ID] = &snapshotState{source: source, pending: &o}
	case e.Phase == begun:
		s.pending = &o
	case o.Kind == unsnapshot && e.Phase == done, e.Phase == refused && !s.there:
		delete(m.snapshots, o.ID)
	default:
		s.there, s.pending = true, nil
	}
}

// source is what a volume is made of, nil if of nothing.
func (m *model) source(o op) *volumeState {
	switch {
	case o.From == "":
		return nil
	case o.Clone:
		return m.volumes[o.From]
	}
	if s := m.snapshots[o.From]; s != nil {
		return &s.source
	}
	return nil
}

func (m *model) ids() []string { return slices.Sorted(maps.Keys(m.volumes)) }

func (m *model) snapshotIDs() []string { return slices.Sorted(maps.Keys(m.snapshots)) }
