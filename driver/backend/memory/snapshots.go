package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/driver/volume"
)

const (
	snapshotsDir = "snapshots"
	capturedDir  = ".plinth/memory/snapshots"
)

var _ backend.Snapshotter = (*Memory)(nil)

// Snapshot copies a volume. A snapshot is there once its spec file is.
func (m *Memory) Snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) (backend.Snapshot, error) {
	s, err := m.spec(src)
	if err == nil {
		_, err = m.captured(id)
		if errors.Is(err, volume.ErrNotFound) {
			from := dataPath(s)
			s.ID = id
			err = m.copy(ctx, from, snapshotPath(s), p)
			if err == nil {
				err = m.writeSpec(capturedPath(id), s)
			}
		}
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return m.GetSnapshot(ctx, id)
}

// RemoveSnapshot removes a snapshot.
func (m *Memory) RemoveSnapshot(_ context.Context, id volume.ID) error {
	_, err := volume.ParseID(string(id))
	if err == nil {
		err = atomicfile.Remove(m.root, capturedPath(id))
	}
	for _, mode := range []volume.Mode{volume.Filesystem, volume.Block} {
		if err == nil {
			err = m.root.RemoveAll(snapshotPath(volume.Spec{ID: id, Mode: mode}))
		}
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

// GetSnapshot reads one snapshot.
func (m *Memory) GetSnapshot(_ context.Context, id volume.ID) (backend.Snapshot, error) {
	s, err := m.captured(id)
	var held int64
	if err == nil {
		held, _, err = m.held(snapshotPath(s))
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("get snapshot %s: %w", id, err)
	}
	return backend.Snapshot{ID: id, Size: s.Size, Allocated: held, Held: held}, nil
}

// ListSnapshots reads all snapshots.
func (m *Memory) ListSnapshots(ctx context.Context) ([]backend.Snapshot, error) {
	entries, err := fs.ReadDir(m.root.FS(), capturedDir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []backend.Snapshot
	for _, e := range entries {
		name, isSpec := strings.CutSuffix(e.Name(), specSuffix)
		id, err := volume.ParseID(name)
		if !isSpec || err != nil {
			continue
		}
		s, err := m.GetSnapshot(ctx, id)
		if errors.Is(err, volume.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Restore makes a volume of a snapshot.
func (m *Memory) Restore(ctx context.Context, id volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	from, err := m.captured(id)
	if err == nil {
		err = m.fill(ctx, snapshotPath(from), from, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("restore snapshot %s as volume %s: %w", id, s.ID, err)
	}
	return m.Ensure(ctx, s)
}

// Clone makes a volume of another.
func (m *Memory) Clone(ctx context.Context, src volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	from, err := m.spec(src)
	if err == nil {
		err = m.fill(ctx, dataPath(from), from, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s as %s: %w", src, s.ID, err)
	}
	return m.Ensure(ctx, s)
}

// fill puts the data of s in place, which Ensure then makes a volume.
func (m *Memory) fill(ctx context.Context, data string, from, s volume.Spec, p backend.Progress) error {
	if err := m.check(s); err != nil {
		return err
	}
	if from.Mode != s.Mode {
		return fmt.Errorf("%w: the source is a %s volume", volume.ErrUnsupported, from.Mode)
	}
	if s.Size < from.Size {
		return fmt.Errorf("%w: %d bytes; the least is %d", volume.ErrOutOfRange, s.Size, from.Size)
	}
	if _, err := m.spec(s.ID); !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	return m.copy(ctx, data, dataPath(s), p)
}

// copy replaces what is at to by a copy of the tree or file at from.
func (m *Memory) copy(ctx context.Context, from, to string, p backend.Progress) error {
	if err := p.Report(ctx, 0); err != nil {
		return err
	}
	if err := m.root.RemoveAll(to); err != nil {
		return err
	}
	var moved int64
	return fs.WalkDir(m.root.FS(), from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := path.Join(to, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return m.root.Mkdir(at, 0o755)
		}
		n, err := m.copyFile(name, at)
		moved += n
		if err == nil {
			err = p.Report(ctx, moved)
		}
		return err
	})
}

// copyFile keeps holes as far as a file that is all hole stays one.
func (m *Memory) copyFile(from, to string) (int64, error) {
	src, err := m.root.Open(from)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return 0, err
	}
	dst, err := m.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer dst.Close()
	if allocated(fi) == 0 {
		return 0, dst.Truncate(fi.Size())
	}
	return io.Copy(dst, src)
}

func (m *Memory) captured(id volume.ID) (volume.Spec, error) {
	return m.readSpec(id, capturedPath(id))
}

func (m *Memory) readSpec(id volume.ID, name string) (volume.Spec, error) {
	if _, err := volume.ParseID(string(id)); err != nil {
		return volume.Spec{}, err
	}
	data, err := m.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return volume.Spec{}, volume.ErrNotFound
	}
	if err != nil {
		return volume.Spec{}, err
	}
	var s volume.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return volume.Spec{}, fmt.Errorf("spec file: %w", err)
	}
	return s, nil
}

func (m *Memory) writeSpec(name string, s volume.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(m.root, "", name, data, 0o600)
}

func snapshotPath(s volume.Spec) string {
	if s.Mode == volume.Block {
		return path.Join(snapshotsDir, string(s.ID)+".img")
	}
	return path.Join(snapshotsDir, string(s.ID))
}

func capturedPath(id volume.ID) string { return path.Join(capturedDir, string(id)+specSuffix) }
