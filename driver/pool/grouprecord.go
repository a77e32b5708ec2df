package pool

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// groupVersion is the version of the records of groups that this code writes
// and reads; see recordVersion.
const groupVersion = 1

// groupRecord is the file that says what a group of snapshots is. It is in the
// pool of the first of its volumes, and its state is that of the group: as soon
// as it is ready all snapshots are whole, and before that none counts.
type groupRecord struct {
	Version   int               `json:"version"`
	State     state             `json:"state"`
	ID        volume.ID         `json:"id"`
	Name      string            `json:"name"`
	Members   []memberRecord    `json:"members"` // sorted by volume
	Labels    map[string]string `json:"labels,omitempty"`
	Cluster   string            `json:"clusterID,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
}

// memberRecord is a snapshot of a group, which may be in another pool.
type memberRecord struct {
	Volume   volume.ID `json:"volume"` // which may be gone
	Snapshot volume.ID `json:"snapshot"`
}

// groupEntry is a group's record as it was found on disk; broken as in entry.
type groupEntry struct {
	groupRecord
	broken string
}

// reserved is nothing: the records of the snapshots promise their bytes.
func (groupEntry) reserved() int64 { return 0 }

// groupRecords is the store of the records of groups.
type groupRecords struct{ *store[groupEntry] }

func newGroupRecords(root *os.Root, shared bool, step func(string) error) groupRecords {
	return groupRecords{&store[groupEntry]{root: root, dir: groupRecordsDir, shared: shared, step: step, decode: decodeGroup,
		lost: func(id volume.ID, err error) groupEntry {
			return groupEntry{groupRecord: groupRecord{ID: id}, broken: err.Error()}
		}}}
}

// put writes a record durably.
func (s groupRecords) put(r groupRecord) error {
	r.Version = groupVersion
	return s.write(r.ID, r, groupEntry{groupRecord: r})
}

// decodeGroup reads the record of a group. It never fails: what is wrong makes
// the entry broken.
func decodeGroup(id volume.ID, data []byte) groupEntry {
	var r groupRecord
	err := decodeStrictly(data, &r)
	if err == nil {
		err = r.check(id)
	}
	if err != nil {
		return groupEntry{groupRecord: groupRecord{ID: id}, broken: err.Error()}
	}
	return groupEntry{groupRecord: r}
}

func (r groupRecord) check(id volume.ID) error {
	switch {
	case r.Version < 1 || r.Version > groupVersion:
		return fmt.Errorf("version %d, and this plinth knows versions 1 to %d", r.Version, groupVersion)
	case r.ID != id:
		return fmt.Errorf("it is the record of group %.80q", string(r.ID))
	case r.State != creating && r.State != ready && r.State != deleting:
		return fmt.Errorf("unknown state %.40q", string(r.State))
	case r.Name == "" || len(r.Members) == 0:
		return errors.New("no name or no snapshots")
	}
	for _, m := range r.Members {
		for _, id := range []volume.ID{m.Volume, m.Snapshot} {
			if _, err := volume.ParseID(string(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// volumes are those that the snapshots are of, sorted.
func (r groupRecord) volumes() []volume.ID {
	var out []volume.ID
	for _, m := range r.Members {
		out = append(out, m.Volume)
	}
	return out
}
