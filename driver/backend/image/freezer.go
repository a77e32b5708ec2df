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

var _ backend.Freezer = (*Image)(nil)

// capture is the part of a backend.Capture that the host does.
type capture interface {
	Freeze() error
	Cut() error
	Thaw() error
	// Seal makes what was cut durable, under a name that does not count.
	Seal() error
	Close() error
}

// Freezes is nil where images have reflinks: what is copied byte by byte would
// be frozen for as long as that takes.
func (b *Image) Freezes() error {
	if b.sharing == backend.SharesNothing {
		return fmt.Errorf("%w: its filesystem has no reflinks, so images are copied and not taken at one instant; a pool on XFS has them", volume.ErrUnsupported)
	}
	return nil
}

// Prepare begins a snapshot of a volume that is to be frozen. A Block volume
// must not be attached: who writes to a device cannot be stopped.
func (b *Image) Prepare(_ context.Context, src, id volume.ID) (backend.Capture, error) {
	c, err := b.prepare(src, id)
	if err != nil {
		return nil, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return &frozen{c, b, id}, nil
}

func (b *Image) prepare(src, id volume.ID) (capture, error) {
	if err := layout.Check(id); err != nil {
		return nil, err
	}
	if _, err := b.stat(src); err != nil {
		return nil, err
	}
	_, err := b.host.Stat(b.kind.SnapshotPath(id))
	if err == nil {
		return nil, volume.ErrExists
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return b.host.Capture(b.kind.Path(src), b.kind.SnapshotTmpPath(id))
}

// frozen is a snapshot that is being taken.
type frozen struct {
	capture
	b  *Image
	id volume.ID
}

// Finish implements backend.Capture.
func (f *frozen) Finish(ctx context.Context) (backend.Snapshot, error) {
	err := f.Seal()
	if err == nil {
		err = f.b.host.Rename(f.b.kind.SnapshotTmpPath(f.id), f.b.kind.SnapshotPath(f.id))
	}
	if err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot %s: %w", f.id, err)
	}
	return f.b.GetSnapshot(ctx, f.id)
}
