package pool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// recordVersion is the version of the records that this code writes and
// reads. A field is only ever added together with a new version, so that an
// older plinth leaves alone what it does not understand.
//
//	2: modifyTo, from, ephemeral, target, family, beside; in spec mkfsOptions, onDelete, attributes
//	3: path, imported, releaseTo, and the states importing and releasing; in spec root
const recordVersion = 3

// state is where a volume is in its life.
type state string

const (
	creating state = "creating" // promised space; nobody was told that it exists
	ready    state = "ready"
	deleting state = "deleting" // nobody may use it; its bytes may be there

	// Of both, the data is others' and is never deleted.
	importing state = "importing" // a directory becomes it; undone by a cut
	releasing state = "releasing" // it becomes a directory; finished after a cut
)

// record is the file that says what a volume is.
type record struct {
	Version     int                 `json:"version"`
	State       state               `json:"state"`
	Spec        volume.Spec         `json:"spec"`
	GrowTo      int64               `json:"growTo,omitempty"`   // bytes promised to a growth that is under way
	ModifyTo    *volume.Attributes  `json:"modifyTo,omitempty"` // attributes that a change under way gives it
	Name        string              `json:"name"`
	Pool        string              `json:"pool"`
	AccessModes []volume.AccessMode `json:"accessModes,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	Cluster     string              `json:"clusterID,omitempty"`
	Exposed     bool                `json:"exposed,omitempty"` // kept at a path of its own for a local or hostPath volume
	From        volume.Content      `json:"from,omitzero"`
	Path        volume.Path         `json:"path,omitempty"`      // where it is named below pathsDir
	Imported    volume.Path         `json:"imported,omitempty"`  // the directory that it was before, where there is a link to it now
	ReleaseTo   volume.Path         `json:"releaseTo,omitempty"` // the directory that it becomes
	Ephemeral   bool                `json:"ephemeral,omitempty"`
	Target      string              `json:"target,omitempty"` // where an ephemeral volume is published
	Family      volume.ID           `json:"family,omitempty"` // the first of those it may share bytes with; "" is itself
	Beside      int64               `json:"beside,omitempty"` // bytes that it may hold beyond its size: those it shares (backend.SharesFree)
	CreatedAt   time.Time           `json:"createdAt"`
}

// reserved is how many bytes of the pool the volume has been promised.
func (r record) reserved() int64 { return max(r.Spec.Size, r.GrowTo) + r.Beside }

// family names those that a volume may share bytes with.
func (r record) family() volume.ID { return cmp.Or(r.Family, r.Spec.ID) }

// changing reports whether a change of the volume is under way.
func (r record) changing() bool { return r.GrowTo > 0 || r.ModifyTo != nil }

// entry is a record as it was found on disk.
type entry struct {
	record
	// broken is why the record cannot be used; the volume then keeps what of
	// its reservation could be read and is left alone.
	broken string
}

// volumeRecords is the store of the records of volumes.
type volumeRecords struct{ *store[entry] }

func newVolumeRecords(root *os.Root, shared bool, step func(string) error) volumeRecords {
	return volumeRecords{&store[entry]{root: root, dir: recordsDir, shared: shared, step: step, decode: decodeRecord,
		lost: func(id volume.ID, err error) entry {
			return entry{record: record{Spec: volume.Spec{ID: id}}, broken: err.Error()}
		}}}
}

// put writes a record durably.
func (s volumeRecords) put(r record) error {
	r.Version = recordVersion
	return s.write(r.Spec.ID, r, entry{record: r})
}

// announce writes a record that says what is about to be done.
func (s volumeRecords) announce(r record) error {
	r.Version = recordVersion
	return s.store.announce(r.Spec.ID, r, entry{record: r})
}

// decodeRecord reads the record of a volume. It never fails: what is wrong
// makes the entry broken.
func decodeRecord(id volume.ID, data []byte) entry {
	var r record
	err := decodeStrictly(data, &r)
	if err == nil {
		err = r.check(id)
	}
	if err == nil {
		return entry{record: r}
	}
	return entry{record: salvage(id, data), broken: err.Error()}
}

// decodeStrictly reads one JSON value and nothing else, without fields that r
// does not have.
func decodeStrictly(data []byte, r any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return err
	}
	if _, more := dec.Token(); !errors.Is(more, io.EOF) {
		return errors.New("there is more after the record")
	}
	return nil
}

func (r record) check(id volume.ID) error {
	switch {
	case r.Version < 1 || r.Version > recordVersion:
		return fmt.Errorf("version %d, and this plinth knows versions 1 to %d", r.Version, recordVersion)
	case r.Spec.ID != id:
		return fmt.Errorf("it is the record of volume %.80q", string(r.Spec.ID))
	case !slices.Contains([]state{creating, ready, deleting, importing, releasing}, r.State):
		return fmt.Errorf("unknown state %.40q", string(r.State))
	case r.Spec.Size <= 0 || r.GrowTo < 0 || r.Beside < 0:
		return fmt.Errorf("sizes %d and %d", r.Spec.Size, r.GrowTo)
	case r.Spec.Mode != volume.Filesystem && r.Spec.Mode != volume.Block:
		return fmt.Errorf("unknown mode %.40q", string(r.Spec.Mode))
	case r.Name == "" || r.Pool == "":
		return errors.New("no name or no pool")
	case r.State == importing && r.Imported == "" || r.State == releasing && r.ReleaseTo == "":
		return fmt.Errorf("%s, and no directory", r.State)
	}
	for _, p := range []volume.Path{r.Path, r.Imported, r.ReleaseTo} {
		if p == "" {
			continue
		}
		if _, err := volume.ParsePath(string(p)); err != nil {
			return err
		}
	}
	return nil
}

// salvage reads the promised bytes of a record that is otherwise of no use.
func salvage(id volume.ID, data []byte) record {
	var partial struct {
		Spec struct {
			Size int64 `json:"size"`
		} `json:"spec"`
		GrowTo int64 `json:"growTo"`
		Beside int64 `json:"beside"`
	}
	_ = json.Unmarshal(data, &partial) // what could not be read stays zero
	return record{Spec: volume.Spec{ID: id, Size: max(0, partial.Spec.Size)}, GrowTo: max(0, partial.GrowTo), Beside: max(0, partial.Beside)}
}

// volume is the record as others see it.
func (r record) volume(node string) volume.Volume {
	return volume.Volume{
		Spec: r.Spec, Name: r.Name, Pool: r.Pool, Node: node,
		AccessModes: r.AccessModes, Labels: r.Labels, From: r.From, Path: r.Path, Ephemeral: r.Ephemeral, Target: r.Target, CreatedAt: r.CreatedAt,
	}
}
