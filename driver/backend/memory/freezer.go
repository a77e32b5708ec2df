package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

var _ backend.Freezer = (*Memory)(nil)

// Freezes is nil.
func (m *Memory) Freezes() error { return nil }

// Prepare begins a snapshot.
func (m *Memory) Prepare(_ context.Context, src, id volume.ID) (backend.Capture, error) {
	s, err := m.spec(src)
	if err == nil {
		_, err = m.captured(id)
		if err == nil {
			err = volume.ErrExists
		} else if errors.Is(err, volume.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot volume %s as %s: %w", src, id, err)
	}
	return &capture{m: m, src: s, id: id}, nil
}

// capture is a snapshot that is being taken. A volume is frozen while a file
// says so; nobody's writing is stopped by it.
type capture struct {
	m   *Memory
	src volume.Spec
	id  volume.ID

	mu     sync.Mutex
	frozen bool
	over   bool
}

func (c *capture) mark() string { return path.Join(specsDir, string(c.src.ID)+frozenSuffix) }

// Freeze implements backend.Capture.
func (c *capture) Freeze() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errors.New("it is to go on by now")
	}
	f, err := c.m.root.OpenFile(c.mark(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: somebody else has frozen it", volume.ErrBusy)
	}
	if err != nil {
		return err
	}
	c.frozen = true
	return f.Close()
}

// Cut implements backend.Capture.
func (c *capture) Cut() error {
	to := c.src
	to.ID = c.id
	return c.m.copy(context.Background(), dataPath(c.src), snapshotPath(to), nil)
}

// Thaw implements backend.Capture.
func (c *capture) Thaw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if !c.frozen {
		return nil
	}
	c.frozen = false
	return c.m.root.Remove(c.mark())
}

// Finish implements backend.Capture.
func (c *capture) Finish(ctx context.Context) (backend.Snapshot, error) {
	s := c.src
	s.ID = c.id
	if err := c.m.writeSpec(capturedPath(c.id), s); err != nil {
		return backend.Snapshot{}, fmt.Errorf("snapshot %s: %w", c.id, err)
	}
	return c.m.GetSnapshot(ctx, c.id)
}

// Close implements backend.Capture.
func (c *capture) Close() error { return c.Thaw() }
