// Package state is what a cluster leaves on disk about itself, so that any later
// process can finish or undo what an earlier one began.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/plinth-csi/plinth/test/cluster/internal/loop"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

// Phase is how far the cluster as a whole has come.
type Phase string

// The phases of a cluster. Whatever is found in another phase than Up when no
// process works on it was interrupted, and is cleaned away.
const (
	Making Phase = "making"
	Up     Phase = "up"
	Ending Phase = "ending"
)

// Machine is the record of one machine: it is written before anything of the
// machine exists, and removed after everything of it is gone.
type Machine struct {
	Index   int      `json:"index"`
	Stopped bool     `json:"stopped,omitempty"` // on purpose, by node stop or node kill
	Init    *Process `json:"init,omitempty"`    // its process 1, when it was started
	// Loops are the loop devices on its disks, when these are about to become
	// unrecognisable.
	Loops []loop.Device `json:"loops,omitempty"`
}

// State is the file DIR/state.json.
type State struct {
	Options  plan.Options        `json:"options"`
	Phase    Phase               `json:"phase"`
	BootID   string              `json:"bootID"` // of the boot of this machine that the processes belong to
	Port     int                 `json:"port"`   // of the API server on the host's loopback
	Tools    map[string]string   `json:"tools"`  // group to folder
	Machines map[string]*Machine `json:"machines"`
}

// Names returns the names of the recorded machines, the control plane first.
func (s *State) Names() []string {
	return slices.SortedFunc(maps.Keys(s.Machines), func(a, b string) int {
		return s.Machines[a].Index - s.Machines[b].Index
	})
}

// Store keeps a State in memory and on disk. It is safe for concurrent use.
type Store struct {
	path  string
	mu    sync.Mutex
	state State
}

// Open reads the state in dir. Absence is reported as fs.ErrNotExist; what
// cannot be read is an error that names the file.
func Open(dir string) (*Store, error) {
	s := &Store{path: file(dir)}
	raw, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("read the state of the cluster: %w", err)
	}
	if err := json.Unmarshal(raw, &s.state); err != nil {
		return nil, fmt.Errorf("read the state of the cluster: %s: %w", s.path, err)
	}
	return s, nil
}

// Create writes the first state into dir, which it makes.
func Create(dir string, first State) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	s := &Store{path: file(dir), state: first}
	if s.state.Machines == nil {
		s.state.Machines = map[string]*Machine{}
	}
	return s, s.write()
}

// Exists says whether dir holds the state of a cluster.
func Exists(dir string) bool {
	_, err := os.Stat(file(dir))
	return !errors.Is(err, fs.ErrNotExist)
}

func file(dir string) string { return filepath.Join(dir, "state.json") }

// Get returns a copy of the state.
func (s *Store) Get() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.state
	out.Machines = make(map[string]*Machine, len(s.state.Machines))
	for name, m := range s.state.Machines {
		c := *m
		if m.Init != nil {
			p := *m.Init
			c.Init = &p
		}
		out.Machines[name] = &c
	}
	out.Tools = maps.Clone(s.state.Tools)
	return out
}

// Update changes the state and returns after the change is on disk.
func (s *Store) Update(change func(*State)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	return s.write()
}

func (s *Store) write() error {
	raw, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	if err := replaceFile(s.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// replaceFile publishes content at path so that a reader, also one after a
// crash, finds the old or the new content and nothing between.
func replaceFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".state-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already when all went well
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
