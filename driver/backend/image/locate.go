package image

import (
	"context"
	"fmt"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Devices implements backend.Locator.
func (b *Image) Devices(context.Context) (map[volume.ID]string, error) {
	names, err := b.host.Names(layout.Volumes)
	if err != nil {
		return nil, fmt.Errorf("devices of volumes: %w", err)
	}
	var paths []string
	for _, name := range names {
		if id, ok := b.kind.ID(name); ok {
			paths = append(paths, b.kind.Path(id))
		}
	}
	devices, err := b.host.Devices(paths)
	if err != nil {
		return nil, fmt.Errorf("devices of volumes: %w", err)
	}
	out := map[volume.ID]string{}
	for _, name := range names {
		if id, ok := b.kind.ID(name); ok && devices[b.kind.Path(id)] != "" {
			out[id] = devices[b.kind.Path(id)]
		}
	}
	return out, nil
}
