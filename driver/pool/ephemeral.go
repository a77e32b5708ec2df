package pool

import (
	"cmp"
	"context"
	"slices"

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

// Ephemeral lists the ephemeral volumes of the pools that serve, sorted by ID.
func (m *Manager) Ephemeral(context.Context) ([]volume.Volume, error) {
	var out []volume.Volume
	err := m.each(func(p *pool, e entry) {
		if e.Ephemeral {
			out = append(out, e.volume(p.node))
		}
	})
	slices.SortFunc(out, func(a, b volume.Volume) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}
