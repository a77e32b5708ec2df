package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/subvolume"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

var _ backend.Snapshotter = (*Btrfs)(nil)

// sizeAttribute, on a snapshot's root, is the size of its volume in bytes.
const sizeAttribute = "trusted.plinth.size"

func snapshotPath(id volume.ID) string { return layout.Directory.SnapshotPath(id) }

// snapshotTmp is where a snapshot is given its size before it counts.
func snapshotTmp(id volume.ID) string { return layout.Directory.SnapshotTmpPath(id) }

// do runs one operation on the machine, unless a test cuts it.
func (b *Btrfs) do(operation string, f func() error) error {
	if b.step != nil {
		if err := b.step(operation); err != nil {
			return err
		}
	}
	return f()
}

// Snapshot takes a snapshot, in an instant and atomically.
func (b *Btrfs) Snapshot(ctx context.Context, src, id volume.ID, _ backend.Progress) (backend.Snapshot, error) {
	if err := b.snapshot(ctx, src, id); err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return b.GetSnapshot(ctx, id)
}

func (b *Btrfs) snapshot(ctx context.Context, src, id volume.ID) error {
	info, err := b.Get(ctx, src)
	if err != nil {
		return err
	}
	_, err = b.GetSnapshot(ctx, id)
	if !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if err := b.machine.dir.Mkdir(layout.Snapshots, 0o700); err != nil {
		return err
	}
	tmp := snapshotTmp(id)
	if err := b.do("free "+tmp, func() error { return b.machine.Free(ctx, tmp) }); err != nil {
		return err
	}
	if err := b.do("snapshot to "+tmp, func() error { return b.machine.copy(layout.Directory.Path(src), tmp) }); err != nil {
		return err
	}
	if err := b.do("write the size of "+tmp, func() error { return b.machine.writeSize(tmp, info.Size) }); err != nil {
		return err
	}
	// A read-only one cannot be moved: it becomes so where it will stay, or
	// when the pool is opened next.
	err = b.do("rename "+tmp, func() error { return b.machine.dir.Rename(tmp, snapshotPath(id)) })
	if err != nil {
		return err
	}
	return b.do("seal "+snapshotPath(id), func() error { return b.machine.seal(snapshotPath(id)) })
}

// RemoveSnapshot removes a snapshot and waits for the bytes only it held.
func (b *Btrfs) RemoveSnapshot(ctx context.Context, id volume.ID) error {
	err := layout.Check(id)
	if err == nil {
		err = b.do("free "+snapshotTmp(id), func() error { return b.machine.Free(ctx, snapshotTmp(id)) })
	}
	if err == nil {
		err = b.do("free "+snapshotPath(id), func() error { return b.machine.Free(ctx, snapshotPath(id)) })
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

// GetSnapshot reads one snapshot.
func (b *Btrfs) GetSnapshot(_ context.Context, id volume.ID) (backend.Snapshot, error) {
	err := layout.Check(id)
	var s backend.Snapshot
	if err == nil {
		s, err = b.machine.readSnapshot(id)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = volume.ErrNotFound
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("get snapshot %s: %w", id, err)
	}
	return s, nil
}

// ListSnapshots reads all snapshots.
func (b *Btrfs) ListSnapshots(ctx context.Context) ([]backend.Snapshot, error) {
	ids, err := b.machine.snapshotIDs()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []backend.Snapshot
	for _, id := range ids {
		s, err := b.GetSnapshot(ctx, id)
		if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrInvalid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Restore makes a volume of a snapshot.
func (b *Btrfs) Restore(ctx context.Context, id volume.ID, s volume.Spec, _ backend.Progress) (volume.Info, error) {
	snapshot, err := b.GetSnapshot(ctx, id)
	if err == nil {
		err = b.fill(ctx, snapshotPath(id), snapshot.Size, s)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("restore snapshot %s as volume %s: %w", id, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// Clone makes a volume of another.
func (b *Btrfs) Clone(ctx context.Context, src volume.ID, s volume.Spec, _ backend.Progress) (volume.Info, error) {
	info, err := b.Get(ctx, src)
	if err == nil {
		err = b.fill(ctx, layout.Directory.Path(src), info.Size, s)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s as %s: %w", src, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// fill makes the volume s, unless it is there, as a writable copy of from.
func (b *Btrfs) fill(ctx context.Context, from string, least int64, s volume.Spec) error {
	limits, err := b.Limits(s)
	if err == nil {
		err = layout.CheckSize(s.Size, least, 0)
	}
	if err != nil {
		return err
	}
	_, err = b.Get(ctx, s.ID)
	if !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	tmp := layout.Directory.TmpPath(s.ID)
	if err := b.do("free "+tmp, func() error { return b.machine.Free(ctx, tmp) }); err != nil {
		return err
	}
	if err := b.do("copy to "+tmp, func() error { return b.machine.copy(from, tmp) }); err != nil {
		return err
	}
	if err := b.do("limit "+tmp, func() error { return b.machine.Limit(tmp, limits) }); err != nil {
		return err
	}
	return b.do("rename "+tmp, func() error { return b.machine.dir.Rename(tmp, layout.Directory.Path(s.ID)) })
}

// copy makes a writable snapshot of the subvolume from.
func (m *machine) copy(from, to string) error {
	source, _, err := m.open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	parent, err := m.dir.OpenFile(path.Dir(to), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	return subvolume.Snapshot(source, parent, path.Base(to), false)
}

func (m *machine) writeSize(name string, size int64) error {
	f, _, err := m.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), sizeAttribute, []byte(strconv.FormatInt(size, 10)), 0); err != nil {
		return fmt.Errorf("write the attribute %s of %s: %w", sizeAttribute, name, err)
	}
	return nil
}

func (m *machine) readSnapshot(id volume.ID) (backend.Snapshot, error) {
	f, number, err := m.open(snapshotPath(id))
	if err != nil {
		return backend.Snapshot{}, err
	}
	defer f.Close()
	size, err := readSize(f)
	if err != nil {
		return backend.Snapshot{}, err
	}
	u, _, err := subvolume.Usage(f, subvolume.GroupOf(0, number))
	held := u.Referenced
	if m.mode == subvolume.QuotaSimple {
		held = -1 // what it shares is the writer's
	}
	return backend.Snapshot{ID: id, Size: size, Allocated: u.Exclusive, Held: held}, err
}

func readSize(f *os.File) (int64, error) {
	value := make([]byte, 20)
	n, err := unix.Fgetxattr(int(f.Fd()), sizeAttribute, value)
	if errors.Is(err, unix.ENODATA) {
		return 0, fmt.Errorf("%w: %s lacks the attribute %s, so it is no snapshot of Plinth's", volume.ErrInvalid, f.Name(), sizeAttribute)
	}
	if err != nil {
		return 0, fmt.Errorf("read the attribute %s of %s: %w", sizeAttribute, f.Name(), err)
	}
	return strconv.ParseInt(string(value[:n]), 10, 64)
}

func (m *machine) seal(name string) error {
	f, _, err := m.open(name)
	if err != nil {
		return err
	}
	return errors.Join(subvolume.SetReadOnly(f), subvolume.Commit(f), f.Close())
}

// snapshotIDs lists what is named like a snapshot.
func (m *machine) snapshotIDs() ([]volume.ID, error) {
	entries, err := m.dir.Entries(layout.Snapshots)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []volume.ID
	for _, e := range entries {
		if id, ok := layout.Directory.ID(e.Name()); ok && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// sealSnapshots finishes snapshots that a cut left writable.
func (m *machine) sealSnapshots() error {
	ids, err := m.snapshotIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := m.readSnapshot(id); err != nil {
			continue // not ours
		}
		if err := m.seal(snapshotPath(id)); err != nil {
			return err
		}
	}
	return nil
}
