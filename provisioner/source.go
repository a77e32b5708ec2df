package provisioner

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// content is where what a new volume starts with is kept: the volume is made
// in that pool.
type content struct {
	what       string // for messages
	node, pool string
	shared     bool // every node that has the pool reaches it
	mode       volume.Mode
	fsType     string
	size       int64
}

// keepToSource restricts a request to where what it starts with is.
func (c *core) keepToSource(ctx context.Context, place *placement.Request, from volume.Content) error {
	if from == (volume.Content{}) {
		return nil
	}
	found, err := c.find(ctx, from)
	if err != nil {
		return err
	}
	return found.keepTo(place)
}

// find looks a source up. ErrNotFound without it, ErrBusy while it is not
// whole.
func (c *core) find(ctx context.Context, from volume.Content) (content, error) {
	if from.Snapshot != "" {
		return c.findSnapshot(ctx, from.Snapshot)
	}
	v, _, err := c.read(ctx, from.Volume)
	if err != nil {
		return content{}, fmt.Errorf("source %w", err)
	}
	if v.DeletionTimestamp != nil || v.Status.Size == nil {
		return content{}, fmt.Errorf("source volume %s: %w", from.Volume, volume.ErrNotFound)
	}
	return contentIn(v), nil
}

// contentIn is that of a volume that was made.
func contentIn(v *v1alpha1.PlinthVolume) content {
	return content{
		"volume " + v.Name, v.Spec.NodeName, v.Spec.Pool, v.Spec.Shared,
		volume.Mode(v.Spec.VolumeMode), v.Spec.FSType, v.Status.Size.Value(),
	}
}

func (c *core) findSnapshot(ctx context.Context, id volume.ID) (content, error) {
	s, _, err := c.readSnapshot(ctx, id)
	if err != nil {
		return content{}, fmt.Errorf("source %w", err)
	}
	switch {
	case s.DeletionTimestamp != nil || s.Status.CreatedAt == nil:
		return content{}, fmt.Errorf("source snapshot %s: %w", id, volume.ErrNotFound)
	case !s.Status.Ready:
		return content{}, fmt.Errorf("%w: source snapshot %s is not ready%s", volume.ErrBusy, id, reported(s))
	}
	return content{
		"snapshot " + s.Name, s.Spec.NodeName, s.Spec.Pool, s.Spec.Shared,
		volume.Mode(s.Spec.VolumeMode), s.Spec.FSType, s.Status.Size.Value(),
	}, nil
}

// keepTo restricts a request to where the content is, or says why it cannot be
// there: ErrOutOfRange if it is to be smaller, ErrInvalid if it is to be
// something else or its pool is not allowed, ErrNoCapacity if its node is not.
func (c *content) keepTo(r *placement.Request) error {
	switch {
	case r.Mode != c.mode:
		return fmt.Errorf("%w: %s has the volumeMode %s, and %s is asked for", volume.ErrInvalid, c.what, c.mode, r.Mode)
	case r.FSType != "" && r.FSType != c.fsType:
		return fmt.Errorf("%w: %s has %s, and %s is asked for; use a class with that filesystem or without one", volume.ErrInvalid, c.what, cmp.Or(c.fsType, "no filesystem of its own"), r.FSType)
	case r.Size < c.size:
		return fmt.Errorf("%w: %s has %s, and %s are asked for; ask for as much or more", volume.ErrOutOfRange, c.what, bytesize.Format(c.size), bytesize.Format(r.Size))
	case len(r.Pools) > 0 && !slices.Contains(r.Pools, c.pool):
		return fmt.Errorf("%w: %s is in pool %s, where its copy has to be made, and the StorageClass allows %s; use a class that allows pool %s", volume.ErrInvalid, c.what, c.pool, strings.Join(r.Pools, ", "), c.pool)
	case !c.reaches(r.Nodes):
		return fmt.Errorf("%w: %s is on node %s, where its copy has to be made, and the volume is to be on %s", volume.ErrNoCapacity, c.what, c.node, strings.Join(r.Nodes, ", "))
	}
	r.Pools, r.FSType = []string{c.pool}, c.fsType
	if !c.shared {
		r.Nodes = []string{c.node}
	}
	return nil
}

// reaches says whether a copy could be made on one of the nodes; none is any.
func (c *content) reaches(nodes []string) bool {
	return c.shared || len(nodes) == 0 || slices.Contains(nodes, c.node)
}

// sourceOf is a source as a volume's intent tells it; nil for an empty volume.
func sourceOf(from volume.Content) *v1alpha1.VolumeSource {
	if from == (volume.Content{}) {
		return nil
	}
	return &v1alpha1.VolumeSource{Snapshot: string(from.Snapshot), Volume: string(from.Volume)}
}

func contentOf(s *v1alpha1.VolumeSource) volume.Content {
	if s == nil {
		return volume.Content{}
	}
	return volume.Content{Snapshot: volume.ID(s.Snapshot), Volume: volume.ID(s.Volume)}
}
