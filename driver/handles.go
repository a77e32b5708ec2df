package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
)

// A handle is how a caller names a volume: the ID that CreateVolume answered,
// the name that kubelet makes up for an inline volume, or whatever an
// administrator wrote into a PersistentVolume. No handle becomes part of a
// path; one that is no ID stands for the volume whose record has it as name.

// records is where handles are looked up.
type records interface {
	Get(ctx context.Context, id volume.ID) (volume.Volume, error)
}

// handleID is the ID that a handle can have. One that can name no volume of
// ours names one that does not exist (CSI 1.13: NOT_FOUND); only its absence
// is invalid. named says that the volume's record must have that name.
func handleID(handle string) (id volume.ID, named bool, err error) {
	if handle == "" {
		return "", false, fmt.Errorf("%w: volume_id is missing", volume.ErrInvalid)
	}
	if id, err := volume.ParseID(handle); err == nil {
		return id, false, nil
	}
	if len(handle) > maxString || slices.Contains(strings.Split(handle, "/"), "..") {
		return "", false, fmt.Errorf("volume %.80q: %w", handle, volume.ErrNotFound)
	}
	return volume.IDForName(handle), true, nil
}

// lookup returns the volume of a handle, from its record.
func lookup(ctx context.Context, in records, handle string) (volume.Volume, error) {
	id, named, err := handleID(handle)
	if err != nil {
		return volume.Volume{}, err
	}
	v, err := in.Get(ctx, id)
	if err == nil && named && v.Name != handle {
		err = fmt.Errorf("volume %.80q: %w", handle, volume.ErrNotFound)
	}
	return v, err
}

// resolve is the ID of the volume of a handle. Whether there is a volume of
// an ID is for whoever works on it to see.
func resolve(ctx context.Context, in records, handle string) (volume.ID, error) {
	id, named, err := handleID(handle)
	if err == nil && named {
		_, err = lookup(ctx, in, handle)
	}
	return id, err
}

// release is resolve for a volume that somebody lets go of, which must be
// possible while its pool is away and when it is half gone.
func release(ctx context.Context, in records, handle string) (volume.ID, error) {
	id, named, err := handleID(handle)
	if err != nil || !named {
		return id, err
	}
	if v, err := in.Get(ctx, id); err == nil && v.Name != handle {
		return "", fmt.Errorf("volume %.80q: %w", handle, volume.ErrNotFound)
	}
	return id, nil
}

// snapshotID reads the ID of a snapshot or a group, which is always ours.
func snapshotID(field, s string) (volume.ID, error) {
	if s == "" {
		return "", fmt.Errorf("%w: %s is missing", volume.ErrInvalid, field)
	}
	id, err := volume.ParseID(s)
	if err != nil {
		return "", fmt.Errorf("%s %.80q: %w", field, s, volume.ErrNotFound)
	}
	return id, nil
}

// absent turns "not found" into nothing to do.
func absent(err error) error {
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	return err
}
