package pool

import (
	"context"

	"github.com/plinth-csi/plinth/driver/volume"
)

// DeleteEphemeral is Delete for a volume that is ephemeral, also one that is
// half made. Another is left alone.
func (m *Manager) DeleteEphemeral(ctx context.Context, id volume.ID) error {
	return m.remove(ctx, id, func() (found, error) {
		f, err := m.find(id)
		if err == nil && !f.entry.Ephemeral {
			f.release()
			return found{}, volume.ErrNotFound
		}
		return f, err
	})
}
