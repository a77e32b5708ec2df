package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

var _ backend.Snapshotter = (*Directory)(nil)

// sizeAttribute, on a snapshot's root, is the size of its volume in bytes, 0
// if it had none.
const sizeAttribute = "trusted.plinth.size"

const kind = layout.Directory

// Snapshot copies a volume file by file: see the package's comment.
func (b *Directory) Snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) (backend.Snapshot, error) {
	if err := b.snapshot(ctx, src, id, p); err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return b.GetSnapshot(ctx, id)
}

func (b *Directory) snapshot(ctx context.Context, src, id volume.ID, p backend.Progress) error {
	info, err := b.Get(ctx, src)
	if err != nil {
		return err
	}
	if _, err := b.GetSnapshot(ctx, id); !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if err := b.dir.Mkdir(layout.Snapshots, 0o700); err != nil {
		return err
	}
	tmp := kind.SnapshotTmpPath(id)
	if err := b.copyTo(ctx, kind.Path(src), tmp, info.Size, p); err != nil {
		return err
	}
	err = b.do("write the size of "+tmp, func() error { return b.writeSize(tmp, info.Size) })
	if err != nil {
		return err
	}
	return b.files.Rename(tmp, kind.SnapshotPath(id))
}

// RemoveSnapshot removes a snapshot and waits for its bytes.
func (b *Directory) RemoveSnapshot(ctx context.Context, id volume.ID) error {
	if err := b.removeSnapshot(ctx, id); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

func (b *Directory) removeSnapshot(ctx context.Context, id volume.ID) error {
	if err := layout.Check(id); err != nil {
		return err
	}
	trash := kind.SnapshotTrashPath(id)
	for _, left := range []string{trash, kind.SnapshotTmpPath(id)} {
		if err := b.keeper.Free(ctx, left); err != nil {
			return err
		}
	}
	_, err := b.keeper.Stat(kind.SnapshotPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = b.files.Rename(kind.SnapshotPath(id), trash)
	}
	if err != nil {
		return err
	}
	return b.keeper.Free(ctx, trash)
}

// GetSnapshot reads one snapshot. What would be free without it is not known
// cheaply: the quota counts what it shares as well.
func (b *Directory) GetSnapshot(_ context.Context, id volume.ID) (backend.Snapshot, error) {
	err := layout.Check(id)
	var size int64
	if err == nil {
		size, err = b.readSize(kind.SnapshotPath(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = volume.ErrNotFound
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("get snapshot %s: %w", id, err)
	}
	d, err := b.keeper.Stat(kind.SnapshotPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		err = volume.ErrNotFound
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("get snapshot %s: %w", id, err)
	}
	return backend.Snapshot{ID: id, Size: size, Allocated: -1, Held: d.Exclusive}, nil
}

// ListSnapshots reads all snapshots.
func (b *Directory) ListSnapshots(ctx context.Context) ([]backend.Snapshot, error) {
	names, err := b.files.Names(layout.Snapshots)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []backend.Snapshot
	for _, name := range names {
		id, ok := kind.ID(name)
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

// Restore makes a volume of a snapshot.
func (b *Directory) Restore(ctx context.Context, id volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	snapshot, err := b.GetSnapshot(ctx, id)
	if err == nil {
		err = b.fill(ctx, kind.SnapshotPath(id), snapshot.Size, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("restore snapshot %s as volume %s: %w", id, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// Clone makes a volume of another, file by file as Snapshot does.
func (b *Directory) Clone(ctx context.Context, src volume.ID, s volume.Spec, p backend.Progress) (volume.Info, error) {
	info, err := b.Get(ctx, src)
	if err == nil {
		err = b.fill(ctx, kind.Path(src), info.Size, s, p)
	}
	if err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s as %s: %w", src, s.ID, err)
	}
	return b.Ensure(ctx, s)
}

// fill makes the volume s, unless it is there, as a copy of from.
func (b *Directory) fill(ctx context.Context, from string, least int64, s volume.Spec, p backend.Progress) error {
	limits, err := b.Limits(s)
	if err == nil {
		err = layout.CheckSize(limits.Bytes, least, 0)
	}
	if err != nil {
		return err
	}
	if _, err := b.Get(ctx, s.ID); !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	tmp := kind.TmpPath(s.ID)
	if err := b.copyTo(ctx, from, tmp, limits.Bytes, p); err != nil {
		return err
	}
	if err := b.keeper.Limit(tmp, limits); err != nil {
		return err
	}
	return b.files.Rename(tmp, kind.Path(s.ID))
}

// slack is how many times its size a copy may hold while it is made: the
// same files may take some more blocks than they did, and one that is moved
// meanwhile is copied twice; a tree that grows as it is copied has to end.
const slack = 2

// copyTo makes a directory with a project of its own, copies from into it,
// and makes that durable. What is there under that name is freed first.
func (b *Directory) copyTo(ctx context.Context, from, tmp string, size int64, p backend.Progress) error {
	if err := b.keeper.Free(ctx, tmp); err != nil {
		return err
	}
	if err := b.keeper.Make(tmp, tree.Limits{Bytes: slack * size}); err != nil {
		return err
	}
	if err := p.Report(ctx, 0); err != nil {
		return errors.Join(err, b.keeper.Free(context.WithoutCancel(ctx), tmp))
	}
	err := b.do("copy "+from+" to "+tmp, func() error {
		if err := b.dir.CopyTree(ctx, from, tmp, p.Report, sizeAttribute); err != nil {
			return err
		}
		return unix.Syncfs(int(b.dir.File().Fd()))
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, beneath.ErrMount):
		err = fmt.Errorf("%w: %w", volume.ErrInUse, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		err = fmt.Errorf("%w: %w", volume.ErrNoCapacity, err)
	}
	// Half a copy is of no use, and what it holds may be what was missing.
	return errors.Join(err, b.keeper.Free(context.WithoutCancel(ctx), tmp))
}

// do runs one operation on the machine, unless a test cuts it.
func (b *Directory) do(operation string, f func() error) error {
	if b.step != nil {
		if err := b.step(operation); err != nil {
			return err
		}
	}
	return f()
}

func (b *Directory) openRoot(name string) (*os.File, error) {
	return (&plain{dir: b.dir}).open(name)
}

func (b *Directory) writeSize(name string, size int64) error {
	f, err := b.openRoot(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), sizeAttribute, []byte(strconv.FormatInt(size, 10)), 0); err != nil {
		return fmt.Errorf("write the attribute %s of %s: %w", sizeAttribute, name, err)
	}
	return f.Sync()
}

func (b *Directory) readSize(name string) (int64, error) {
	f, err := b.openRoot(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	value := make([]byte, 20)
	n, err := unix.Fgetxattr(int(f.Fd()), sizeAttribute, value)
	if errors.Is(err, unix.ENODATA) {
		return 0, fmt.Errorf("%w: %s lacks the attribute %s, so it is no snapshot of Plinth's", volume.ErrInvalid, name, sizeAttribute)
	}
	if err != nil {
		return 0, fmt.Errorf("read the attribute %s of %s: %w", sizeAttribute, name, err)
	}
	return strconv.ParseInt(string(value[:n]), 10, 64)
}
