package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/driver/volume"
)

const recordSuffix = ".json"

// store keeps the records of one pool. A pool with one owner is read from disk
// once and remembered; a shared pool, which other nodes write too, is read
// every time.
type store struct {
	root   *os.Root
	shared bool
	// step is called before each write; a test's returns an error where a cut
	// is to be. It is never nil.
	step func(what string) error

	mu      sync.Mutex
	entries map[volume.ID]entry // of a pool with one owner
	strays  []string            // files that are no records
}

// openStore reads the records below root.
func openStore(root *os.Root, shared bool, step func(string) error) (*store, error) {
	s := &store{root: root, shared: shared, step: step}
	entries, strays, err := s.read()
	if err != nil {
		return nil, err
	}
	s.entries, s.strays = entries, strays
	return s, nil
}

// read reads all records from disk.
func (s *store) read() (map[volume.ID]entry, []string, error) {
	files, err := fs.ReadDir(s.root.FS(), recordsDir)
	if err != nil {
		return nil, nil, fmt.Errorf("read records: %w", err)
	}
	entries, strays := map[volume.ID]entry{}, []string(nil)
	for _, f := range files {
		name, isRecord := strings.CutSuffix(f.Name(), recordSuffix)
		id, err := volume.ParseID(name)
		if !isRecord || err != nil || !f.Type().IsRegular() {
			if !atomicfile.IsTemp(f.Name()) {
				strays = append(strays, path.Join(recordsDir, f.Name()))
			}
			continue
		}
		e, err := s.readOne(id)
		if errors.Is(err, volume.ErrNotFound) {
			continue // removed meanwhile by another node
		}
		entries[id] = e
	}
	return entries, strays, nil
}

// readOne reads one record. A file that cannot be read is a broken entry.
func (s *store) readOne(id volume.ID) (entry, error) {
	data, err := s.root.ReadFile(recordPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, volume.ErrNotFound
	}
	if err != nil {
		return entry{record: record{Spec: volume.Spec{ID: id}}, broken: err.Error()}, nil
	}
	return decodeRecord(id, data), nil
}

// get returns ErrNotFound for a volume without a record.
func (s *store) get(id volume.ID) (entry, error) {
	if s.shared {
		return s.readOne(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[id]
	if !ok {
		return entry{}, volume.ErrNotFound
	}
	return e, nil
}

// all returns the entries sorted by ID.
func (s *store) all() ([]entry, error) {
	var entries map[volume.ID]entry
	if s.shared {
		var err error
		if entries, _, err = s.read(); err != nil {
			return nil, err
		}
	} else {
		s.mu.Lock()
		entries = maps.Clone(s.entries)
		s.mu.Unlock()
	}
	out := make([]entry, 0, len(entries))
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		out = append(out, entries[id])
	}
	return out, nil
}

// put writes a record durably.
func (s *store) put(r record) error {
	data, err := encodeRecord(r)
	if err == nil {
		err = s.step("write record")
	}
	if err == nil {
		err = atomicfile.Write(s.root, "", recordPath(r.Spec.ID), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write record of volume %s: %w", r.Spec.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[r.Spec.ID] = entry{record: r}
	return nil
}

// remove removes a record durably; one that is not there is no error.
func (s *store) remove(id volume.ID) error {
	err := s.step("remove record")
	if err == nil {
		err = atomicfile.Remove(s.root, recordPath(id))
	}
	if err != nil {
		return fmt.Errorf("remove record of volume %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, id)
	return nil
}

// sweep removes what a cut left of writing records. Other nodes may be
// writing in a shared pool, so there it stays: it is small and never read.
func (s *store) sweep() error {
	if s.shared {
		return nil
	}
	files, err := fs.ReadDir(s.root.FS(), recordsDir)
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	for _, f := range files {
		if atomicfile.IsTemp(f.Name()) {
			if err := s.root.Remove(path.Join(recordsDir, f.Name())); err != nil {
				return fmt.Errorf("sweep records: %w", err)
			}
		}
	}
	return nil
}

func recordPath(id volume.ID) string { return path.Join(recordsDir, string(id)+recordSuffix) }
