package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

var _ backend.Snapshotter = (*Image)(nil)

// copier is the part of the host that copies images.
type copier interface {
	// Copy makes an image with what another holds at one instant, durable but
	// under a name that does not count. What was there under that name is
	// replaced. ErrInUse where that needs an image that nobody has attached.
	Copy(ctx context.Context, from, to string, p backend.Progress) error
	// Capture begins to make, under a name that does not count, an image with
	// what another holds while it is held still. ErrInUse if it is used in a
	// way that cannot be.
	Capture(from, to string) (capture, error)
	// Own makes a copy a volume of its own: another UUID, the size in bytes,
	// and with thick all its bytes.
	Own(ctx context.Context, name string, size int64, thick bool, c content) error
}

// Snapshot takes a snapshot at one instant, of a volume in use too if the
// pool has reflinks. Without them a volume is copied byte by byte, and only
// while it is not attached: ErrInUse.
func (b *Image) Snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) (backend.Snapshot, error) {
	if err := b.snapshot(ctx, src, id, p); err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return b.GetSnapshot(ctx, id)
}

func (b *Image) snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	if _, err := b.stat(src); err != nil {
		return err
	}
	if _, err := b.host.Stat(b.kind.SnapshotPath(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := b.kind.SnapshotTmpPath(id)
	if err := b.host.Copy(ctx, b.kind.Path(src), tmp, p); err != nil {
		return err
	}
	return b.host.Rename(tmp, b.kind.SnapshotPath(id))
}

// RemoveSnapshot removes a snapshot; the bytes that only it held are free then.
func (b *Image) RemoveSnapshot(_ context.Context, id volume.ID) error {
	if err := b.removeSnapshot(id); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

func (b *Image) removeSnapshot(id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	trash := b.kind.SnapshotTrashPath(id)
	for _, left := range []string{trash, b.kind.SnapshotTmpPath(id)} {
		if err := b.host.Free(left); err != nil {
			return err
		}
	}
	if _, err := b.host.Stat(b.kind.SnapshotPath(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := b.host.Rename(b.kind.SnapshotPath(id), trash); err != nil {
		return err
	}
	return b.host.Free(trash)
}

// GetSnapshot reads one snapshot. What would be free without it is not known
// cheaply: the file's blocks count what it shares as well.
func (b *Image) GetSnapshot(_ context.Context, id volume.ID) (backend.Snapshot, error) {
	f, err := b.statSnapshot(id)
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("get snapshot %s: %w", id, err)
	}
	return backend.Snapshot{ID: id, Size: f.size, Allocated: -1, Held: f.allocated}, nil
}

func (b *Image) statSnapshot(id volume.ID) (file, error) {
	if err := layout.Check(id); err != nil {
		return file{}, err
	}
	f, err := b.host.Stat(b.kind.SnapshotPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, volume.ErrNotFound
	}
	return f, err
}

// ListSnapshots reads all snapshots.
func (b *Image) ListSnapshots(ctx context.Context) ([]backend.Snapshot, error) {
	names, err := b.host.Names(layout.Snapshots)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []backend.Snapshot
	for _, name := range names {
		id, ok := b.kind.ID(name)
		if !ok {
			continue
		}
		s, err := b.GetSnapshot(ctx, id)
		if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrInvalid) {
			continue // removed meanwhile, or not ours
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Restore makes a volume of a snapshot. An empty fsType is the snapshot's; the
// filesystem gets a UUID of its own and is grown by whoever has it mounted.
func (b *Image) Restore(ctx context.Context, id volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	f, err := b.statSnapshot(id)
	if err == nil {
		err = b.fill(ctx, b.kind.SnapshotPath(id), f, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("restore snapshot %s as volume %s: %w", id, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// Clone is Restore from a volume as it is now; in use, as Snapshot says.
func (b *Image) Clone(ctx context.Context, src volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	f, err := b.stat(src)
	if err == nil {
		err = b.fill(ctx, b.kind.Path(src), f, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s as %s: %w", src, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// fill makes the volume s, unless it is there, with what from holds.
func (b *Image) fill(ctx context.Context, from string, source file, s volume.Spec, p backend.Progress) error {
	if err := layout.Check(s.ID); err != nil {
		return err
	}
	holds, _, err := wanted(s)
	if err != nil {
		return err
	}
	if !source.fits(s, holds) {
		return fmt.Errorf("%w: the source holds %s, %s was asked", volume.ErrUnsupported, source.content, holds)
	}
	if err := layout.CheckSize(rounded(s.Size), source.size, b.maxVolume()); err != nil {
		return err
	}
	if _, err := b.host.Stat(b.kind.Path(s.ID)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := b.kind.TmpPath(s.ID)
	if err := b.host.Copy(ctx, from, tmp, p); err != nil {
		return err
	}
	if err := b.host.Own(ctx, tmp, rounded(s.Size), s.Thick, source.content); err != nil {
		return errors.Join(err, b.host.Free(tmp)) // it may hold what was missing
	}
	return b.host.Rename(tmp, b.kind.Path(s.ID))
}
