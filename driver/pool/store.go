package pool

import (
	"encoding/json"
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

// promising is a record that promises bytes of the pool; its zero value none.
type promising interface{ reserved() int64 }

// store keeps the records of one kind of one pool; E is a record as it was
// found on disk. A pool with one owner is read from disk once and remembered; a
// shared pool, which other nodes write too, is read every time.
type store[E promising] struct {
	root   *os.Root
	dir    string
	shared bool
	decode func(id volume.ID, data []byte) E
	lost   func(id volume.ID, err error) E // for a file that cannot be read
	// step is called before each write; a test's returns an error where a cut
	// is to be. It is never nil.
	step func(what string) error

	mu      sync.Mutex
	entries map[volume.ID]E // of a pool with one owner
	sum     int64           // what entries promise
	strays  []string        // files that are no records
}

// open removes what a cut left of writing records and reads all.
func (s *store[E]) open() error {
	if err := s.sweep(); err != nil {
		return err
	}
	entries, strays, err := s.read()
	s.entries, s.strays = entries, strays
	for _, e := range entries {
		s.sum += e.reserved()
	}
	return err
}

// read reads all records from disk.
func (s *store[E]) read() (map[volume.ID]E, []string, error) {
	files, err := fs.ReadDir(s.root.FS(), s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read records: %w", err)
	}
	entries, strays := map[volume.ID]E{}, []string(nil)
	for _, f := range files {
		name, isRecord := strings.CutSuffix(f.Name(), recordSuffix)
		id, err := volume.ParseID(name)
		if !isRecord || err != nil || !f.Type().IsRegular() {
			if !atomicfile.IsTemp(f.Name()) {
				strays = append(strays, path.Join(s.dir, f.Name()))
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
func (s *store[E]) readOne(id volume.ID) (e E, err error) {
	data, err := s.root.ReadFile(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return e, volume.ErrNotFound
	}
	if err != nil {
		return s.lost(id, err), nil
	}
	return s.decode(id, data), nil
}

// get returns ErrNotFound for what has no record.
func (s *store[E]) get(id volume.ID) (E, error) {
	if s.shared {
		return s.readOne(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[id]
	if !ok {
		return e, volume.ErrNotFound
	}
	return e, nil
}

// all returns the entries sorted by ID.
func (s *store[E]) all() ([]E, error) {
	var entries map[volume.ID]E
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
	out := make([]E, 0, len(entries))
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		out = append(out, entries[id])
	}
	return out, nil
}

// promised is how many bytes the records, and what is pending beyond them,
// promise, and how many records there are. One that cannot be read counts with
// what could be read of it.
func (s *store[E]) promised(pending map[volume.ID]int64) (sum int64, records int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, sum := s.entries, s.sum
	if s.shared {
		if entries, _, err = s.read(); err != nil {
			return 0, 0, err
		}
		sum = 0
		for _, e := range entries {
			sum += e.reserved()
		}
	}
	for id, bytes := range pending {
		sum += max(0, bytes-entries[id].reserved())
	}
	return sum, len(entries), nil
}

// write writes a record durably: r as the file has it, which is what e was
// made of.
func (s *store[E]) write(id volume.ID, r any, e E) error {
	return s.publish(id, r, e, atomicfile.Write)
}

// announce writes a record that must be durable before what is done next, and
// not before it is begun. The nodes of a shared pool have no one journal.
func (s *store[E]) announce(id volume.ID, r any, e E) error {
	if s.shared {
		return s.write(id, r, e)
	}
	return s.publish(id, r, e, atomicfile.WriteOrdered)
}

func (s *store[E]) publish(id volume.ID, r any, e E, how func(root *os.Root, tmpDir, name string, data []byte, perm fs.FileMode) error) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = s.step("write record")
	}
	if err == nil {
		err = how(s.root, "", s.path(id), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write record %s: %w", s.path(id), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum += e.reserved() - s.entries[id].reserved()
	s.entries[id] = e
	return nil
}

// remove removes a record durably; one that is not there is no error.
func (s *store[E]) remove(id volume.ID) error {
	err := s.step("remove record")
	if err == nil {
		err = atomicfile.Remove(s.root, s.path(id))
	}
	if err != nil {
		return fmt.Errorf("remove record %s: %w", s.path(id), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum -= s.entries[id].reserved()
	delete(s.entries, id)
	return nil
}

// sweep removes what a cut left of writing records. Other nodes may be
// writing in a shared pool, so there it stays: it is small and never read.
func (s *store[E]) sweep() error {
	if s.shared {
		return nil
	}
	files, err := fs.ReadDir(s.root.FS(), s.dir)
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	for _, f := range files {
		if atomicfile.IsTemp(f.Name()) {
			if err := s.root.Remove(path.Join(s.dir, f.Name())); err != nil {
				return fmt.Errorf("sweep records: %w", err)
			}
		}
	}
	return nil
}

func (s *store[E]) path(id volume.ID) string { return path.Join(s.dir, string(id)+recordSuffix) }
