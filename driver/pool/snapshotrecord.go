package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// snapshotVersion is the version of the records of snapshots that this code
// writes and reads; see recordVersion.
const snapshotVersion = 1

// snapshotRecord is the file that says what a snapshot is.
type snapshotRecord struct {
	Version int         `json:"version"`
	State   state       `json:"state"`
	ID      volume.ID   `json:"id"`
	Name    string      `json:"name"`
	Volume  volume.ID   `json:"volume"` // which may be gone
	Group   volume.ID   `json:"group,omitempty"`
	Pool    string      `json:"pool"`
	Size    int64       `json:"size"` // bytes, of the volume when it was taken
	Mode    volume.Mode `json:"mode"`
	FSType  string      `json:"fsType,omitempty"`
	// Held is the bytes it has been promised: while it is made what its volume
	// may hold, then what it holds, shared or not. It cannot come to more.
	Held      int64             `json:"held"`
	Family    volume.ID         `json:"family"` // the first of those it may share bytes with
	Labels    map[string]string `json:"labels,omitempty"`
	Cluster   string            `json:"clusterID,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
}

// reserved is how many bytes of the pool the snapshot has been promised.
func (r snapshotRecord) reserved() int64 { return r.Held }

// snapshotEntry is a snapshot's record as it was found on disk; broken as in
// entry.
type snapshotEntry struct {
	snapshotRecord
	broken string
}

// snapshotRecords is the store of the records of snapshots.
type snapshotRecords struct{ *store[snapshotEntry] }

func newSnapshotRecords(root *os.Root, shared bool, step func(string) error) snapshotRecords {
	return snapshotRecords{&store[snapshotEntry]{root: root, dir: snapshotRecordsDir, shared: shared, step: step, decode: decodeSnapshot,
		lost: func(id volume.ID, err error) snapshotEntry {
			return snapshotEntry{snapshotRecord: snapshotRecord{ID: id}, broken: err.Error()}
		}}}
}

// put writes a record durably.
func (s snapshotRecords) put(r snapshotRecord) error {
	r.Version = snapshotVersion
	return s.write(r.ID, r, snapshotEntry{snapshotRecord: r})
}

// decodeSnapshot reads the record of a snapshot. It never fails: what is wrong
// makes the entry broken.
func decodeSnapshot(id volume.ID, data []byte) snapshotEntry {
	var r snapshotRecord
	err := decodeStrictly(data, &r)
	if err == nil {
		err = r.check(id)
	}
	if err == nil {
		return snapshotEntry{snapshotRecord: r}
	}
	var partial struct {
		Held int64 `json:"held"`
	}
	_ = json.Unmarshal(data, &partial) // what could not be read stays zero
	return snapshotEntry{snapshotRecord: snapshotRecord{ID: id, Held: max(0, partial.Held)}, broken: err.Error()}
}

func (r snapshotRecord) check(id volume.ID) error {
	switch {
	case r.Version < 1 || r.Version > snapshotVersion:
		return fmt.Errorf("version %d, and this plinth knows versions 1 to %d", r.Version, snapshotVersion)
	case r.ID != id:
		return fmt.Errorf("it is the record of snapshot %.80q", string(r.ID))
	case r.State != creating && r.State != ready && r.State != deleting:
		return fmt.Errorf("unknown state %.40q", string(r.State))
	case r.Size <= 0 || r.Held < 0:
		return fmt.Errorf("size %d, held %d", r.Size, r.Held)
	case r.Mode != volume.Filesystem && r.Mode != volume.Block:
		return fmt.Errorf("unknown mode %.40q", string(r.Mode))
	case r.Name == "" || r.Pool == "" || r.Volume == "":
		return errors.New("no name, no pool or no volume")
	}
	return nil
}

// snapshot is the record as others see it; w is the job that makes it, if it
// is being made.
func (r snapshotRecord) snapshot(node string, w *job) volume.Snapshot {
	s := volume.Snapshot{
		ID: r.ID, Name: r.Name, Volume: r.Volume, Group: r.Group, Pool: r.Pool, Node: node, Mode: r.Mode, FSType: r.FSType,
		Size: r.Size, Labels: r.Labels, CreatedAt: r.CreatedAt, Ready: r.State == ready,
	}
	if w != nil && !s.Ready {
		s.Copied = w.moved.Load()
	}
	return s
}
