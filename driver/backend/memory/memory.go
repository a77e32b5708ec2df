// Package memory is a backend for tests. It behaves like the others, survives
// being reopened, and needs neither root nor a kernel ability: volumes are
// plain directories and files below a directory it is given, and its capacity
// is a number. Nothing enforces a volume's size.
package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/driver/volume"
)

// DefaultCapacity is the size of a pool, in bytes, when Options does not say.
const DefaultCapacity = 100 << 30

// Where things are below the pool's path.
const (
	volumesDir = "volumes"
	specsDir   = ".plinth/memory"
	specSuffix = ".json"
	usedSuffix = ".attached"

	frozenSuffix = ".frozen"
)

// Options configure a memory backend.
type Options struct {
	Dir      string // the pool's path; it exists
	Capacity int64  // bytes; 0 takes DefaultCapacity
}

// Memory is the backend. A volume is there once its spec file is.
type Memory struct {
	dir      string
	root     *os.Root
	capacity int64
}

var _ backend.Opened = (*Memory)(nil)

// Open opens the backend over a directory and undoes what a cut left.
func Open(_ context.Context, o Options) (*Memory, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open memory pool: %w", err)
	}
	m := &Memory{dir: o.Dir, root: root, capacity: o.Capacity}
	if m.capacity == 0 {
		m.capacity = DefaultCapacity
	}
	if err := m.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open memory pool %s: %w", o.Dir, err), root.Close())
	}
	return m, nil
}

// recover makes the directories, removes spec files that were cut short, and
// thaws what is frozen.
func (m *Memory) recover() error {
	for dir, perm := range map[string]fs.FileMode{volumesDir: 0o700, specsDir: 0o700, snapshotsDir: 0o700, capturedDir: 0o700} {
		if err := m.root.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(m.root.FS(), specsDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) || strings.HasSuffix(e.Name(), frozenSuffix) {
			if err := m.root.Remove(path.Join(specsDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close lets go of the directory.
func (m *Memory) Close() error { return m.root.Close() }

// Abilities are both modes; a filesystem volume is a directory. Attributes are
// kept like the size, and enforced as little, and what tests hold is counted soon.
func (m *Memory) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem, volume.Block}, Attributes: true, Counted: true}
}

// Ensure makes or grows a volume.
func (m *Memory) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	old, err := m.spec(s.ID)
	switch {
	case errors.Is(err, volume.ErrNotFound):
		if err = m.check(s); err == nil {
			err = m.makeRoot(s)
		}
	case err == nil && old.Mode != s.Mode:
		err = fmt.Errorf("%w: it is a %s volume", volume.ErrExists, old.Mode)
	case err == nil && s.Size < old.Size:
		err = fmt.Errorf("%w: %d bytes asked, it has %d and volumes never shrink", volume.ErrOutOfRange, s.Size, old.Size)
	}
	if err == nil {
		err = m.write(s)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("ensure volume %s: %w", s.ID, err)
	}
	return m.Get(ctx, s.ID)
}

func (m *Memory) check(s volume.Spec) error {
	switch {
	case s.Mode != volume.Filesystem && s.Mode != volume.Block:
		return fmt.Errorf("%w: mode %q", volume.ErrUnsupported, s.Mode)
	case s.FSType != "":
		return fmt.Errorf("%w: fsType %q; a memory pool gives directories", volume.ErrUnsupported, s.FSType)
	case s.Thick:
		return fmt.Errorf("%w: thick volumes", volume.ErrUnsupported)
	case len(s.MkfsOptions) > 0:
		return fmt.Errorf("%w: mkfs options", volume.ErrUnsupported)
	case s.Size <= 0 || s.Size > m.capacity:
		return fmt.Errorf("%w: %d bytes; from 1 to %d", volume.ErrOutOfRange, s.Size, m.capacity)
	}
	return nil
}

// makeRoot makes the directory of a new volume that is to be somebody's.
func (m *Memory) makeRoot(s volume.Spec) error {
	if s.Root == (volume.Root{}) {
		return nil
	}
	if err := m.root.MkdirAll(dataPath(s), 0o755); err != nil {
		return err
	}
	dir, err := m.root.Open(dataPath(s))
	if err != nil {
		return err
	}
	return errors.Join(layout.SetRoot(dir, s.Root), dir.Close())
}

// write puts the data in place first and the spec, which makes it a volume, last.
func (m *Memory) write(s volume.Spec) error {
	if s.Mode == volume.Block {
		f, err := m.root.OpenFile(dataPath(s), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(s.Size), f.Close()); err != nil {
			return err
		}
	} else if err := m.root.MkdirAll(dataPath(s), 0o755); err != nil {
		return err
	}
	return m.writeSpec(specPath(s.ID), s)
}

// Remove deletes a volume.
func (m *Memory) Remove(_ context.Context, id volume.ID) error {
	s, err := m.spec(id)
	if errors.Is(err, volume.ErrNotFound) {
		// A cut between the two removals below leaves data without a spec.
		return errors.Join(m.root.RemoveAll(path.Join(volumesDir, string(id))),
			m.root.RemoveAll(path.Join(volumesDir, string(id)+".img")))
	}
	if err == nil && m.attached(id) {
		err = fmt.Errorf("%w: attached", volume.ErrInUse)
	}
	if err == nil {
		err = atomicfile.Remove(m.root, specPath(id))
	}
	if err == nil {
		err = m.root.RemoveAll(dataPath(s))
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

// Get reads one volume.
func (m *Memory) Get(_ context.Context, id volume.ID) (volume.Info, error) {
	s, err := m.spec(id)
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	used, _, err := m.held(dataPath(s))
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	return volume.Info{ID: id, Size: s.Size, Allocated: used}, nil
}

// List reads all volumes.
func (m *Memory) List(ctx context.Context) ([]volume.Info, error) {
	entries, err := fs.ReadDir(m.root.FS(), specsDir)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []volume.Info
	for _, e := range entries {
		name, isSpec := strings.CutSuffix(e.Name(), specSuffix)
		id, err := volume.ParseID(name)
		if !isSpec || err != nil {
			continue
		}
		info, err := m.Get(ctx, id)
		if errors.Is(err, volume.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Attach gives the directory, or the file that stands for a block device.
func (m *Memory) Attach(_ context.Context, id volume.ID) (backend.Source, error) {
	s, err := m.spec(id)
	if err == nil {
		err = atomicfile.Write(m.root, "", path.Join(specsDir, string(id)+usedSuffix), nil, 0o600)
	}
	if err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	if s.Mode == volume.Block {
		return backend.Source{Device: filepath.Join(m.dir, dataPath(s))}, nil
	}
	return backend.Source{Dir: filepath.Join(m.dir, dataPath(s))}, nil
}

// Detach undoes Attach.
func (m *Memory) Detach(_ context.Context, id volume.ID) error {
	if _, err := volume.ParseID(string(id)); err != nil {
		return fmt.Errorf("detach volume: %w", err)
	}
	return atomicfile.Remove(m.root, path.Join(specsDir, string(id)+usedSuffix))
}

// Usage counts the bytes and inodes of a volume by walking it.
func (m *Memory) Usage(_ context.Context, id volume.ID, _ string) (volume.Usage, error) {
	s, err := m.spec(id)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	bytes, inodes, err := m.held(dataPath(s))
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	return volume.Usage{
		TotalBytes: s.Size, UsedBytes: bytes, AvailableBytes: max(0, s.Size-bytes),
		TotalInodes: 1 << 20, UsedInodes: inodes, AvailableInodes: max(0, 1<<20-inodes),
	}, nil
}

// Capacity is the fixed size less what the volumes hold. It says Enforced so
// that a pool reckons as it does on the backends that enforce.
func (m *Memory) Capacity(context.Context) (volume.Capacity, error) {
	var used int64
	for _, dir := range []string{volumesDir, snapshotsDir} {
		held, _, err := m.held(dir)
		if err != nil {
			return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
		}
		used += held
	}
	return volume.Capacity{Total: m.capacity, Free: max(0, m.capacity-used), Enforced: true, MaxVolume: m.capacity, MinVolume: 1}, nil
}

func (m *Memory) spec(id volume.ID) (volume.Spec, error) {
	return m.readSpec(id, specPath(id))
}

func (m *Memory) attached(id volume.ID) bool {
	_, err := m.root.Lstat(path.Join(specsDir, string(id)+usedSuffix))
	return err == nil
}

// held counts the bytes in the files at or below name, and the inodes.
func (m *Memory) held(name string) (bytes, inodes int64, err error) {
	err = fs.WalkDir(m.root.FS(), name, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		inodes++
		if d.Type().IsRegular() {
			fi, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			bytes += allocated(fi)
		}
		return nil
	})
	return bytes, inodes, err
}

func dataPath(s volume.Spec) string {
	if s.Mode == volume.Block {
		return path.Join(volumesDir, string(s.ID)+".img")
	}
	return path.Join(volumesDir, string(s.ID))
}

func specPath(id volume.ID) string { return path.Join(specsDir, string(id)+specSuffix) }
