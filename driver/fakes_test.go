package driver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/plinth-csi/plinth/driver/volume"
)

const testDriver = "csi.plinth.dev"

// fakeVolumes is a Volumes over a map. It answers err to everything if set.
type fakeVolumes struct {
	volumes map[volume.ID]volume.Volume
	asked   volume.Request // the last one
	space   volume.Space
	err     error
}

func (f *fakeVolumes) Create(_ context.Context, r volume.Request) (volume.Volume, error) {
	f.asked = r
	if f.err != nil {
		return volume.Volume{}, f.err
	}
	v := volume.Volume{Spec: r.Spec, Name: r.Name, Pool: r.Pool, Node: "node-1", From: r.From}
	if f.volumes == nil {
		f.volumes = map[volume.ID]volume.Volume{}
	}
	f.volumes[r.ID] = v
	return v, nil
}

func (f *fakeVolumes) Delete(_ context.Context, id volume.ID) error {
	delete(f.volumes, id)
	return f.err
}

func (f *fakeVolumes) Get(_ context.Context, id volume.ID) (volume.Volume, error) {
	if f.err != nil {
		return volume.Volume{}, f.err
	}
	v, ok := f.volumes[id]
	if !ok {
		return volume.Volume{}, fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	return v, nil
}

func (f *fakeVolumes) List(context.Context) ([]volume.Volume, error) {
	var out []volume.Volume
	for _, v := range f.volumes {
		out = append(out, v)
	}
	return out, f.err
}

func (f *fakeVolumes) Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error) {
	v, err := f.Get(ctx, id)
	v.Size = max(v.Size, size)
	return v, err
}

func (f *fakeVolumes) Space(_ context.Context, r volume.Request) (volume.Space, error) {
	f.asked = r
	return f.space, f.err
}

// fakeMounter remembers what it was asked. It answers err to everything if set.
type fakeMounter struct {
	fakeVolumes
	id              volume.ID // the last one
	use             volume.Use
	staging, target string
	usage           volume.Usage
}

func (f *fakeMounter) PublishEphemeral(_ context.Context, _ volume.ID, target string, u volume.Use, r volume.Request) error {
	f.target, f.use, f.asked = target, u, r
	return f.err
}

func (f *fakeMounter) Stage(_ context.Context, id volume.ID, staging string, u volume.Use) error {
	f.id, f.staging, f.use = id, staging, u
	return f.err
}

func (f *fakeMounter) Unstage(_ context.Context, id volume.ID, _ string) error {
	f.id = id
	return f.err
}

func (f *fakeMounter) Publish(_ context.Context, id volume.ID, staging, target string, u volume.Use) error {
	f.id, f.staging, f.target, f.use = id, staging, target, u
	return f.err
}

func (f *fakeMounter) Unpublish(_ context.Context, id volume.ID, _ string) error {
	f.id = id
	return f.err
}

func (f *fakeMounter) Stats(context.Context, volume.ID, string) (volume.Usage, error) {
	return f.usage, f.err
}

func (f *fakeMounter) Expand(ctx context.Context, id volume.ID, _ string) (int64, error) {
	v, err := f.Get(ctx, id)
	return v.Size, err
}

// fakeSnapshots is a Snapshots and a Groups over maps. It answers err to
// everything if set.
type fakeSnapshots struct {
	snapshots map[volume.ID]volume.Snapshot
	groups    map[volume.ID]volume.Group
	asked     volume.SnapshotRequest // the last one
	askedFor  volume.GroupRequest
	deleted   []volume.ID
	err       error
}

func (f *fakeSnapshots) CreateSnapshot(_ context.Context, r volume.SnapshotRequest) (volume.Snapshot, error) {
	f.asked = r
	return volume.Snapshot{ID: r.ID, Name: r.Name, Volume: r.Volume, Node: "node-1", Size: 10, Ready: true}, f.err
}

func (f *fakeSnapshots) DeleteSnapshot(_ context.Context, id volume.ID) error {
	if f.snapshots[id].Group != "" {
		return volume.ErrInvalid
	}
	f.deleted = append(f.deleted, id)
	return f.err
}

func (f *fakeSnapshots) GetSnapshot(_ context.Context, id volume.ID) (volume.Snapshot, error) {
	s, ok := f.snapshots[id]
	if !ok {
		return s, fmt.Errorf("snapshot %s: %w", id, volume.ErrNotFound)
	}
	return s, f.err
}

func (f *fakeSnapshots) ListSnapshots(context.Context) ([]volume.Snapshot, error) {
	return slices.Collect(maps.Values(f.snapshots)), f.err
}

func (f *fakeSnapshots) CreateGroup(_ context.Context, r volume.GroupRequest) (volume.Group, error) {
	f.askedFor = r
	g := volume.Group{ID: r.ID, Name: r.Name, Ready: true}
	for _, v := range r.Volumes {
		g.Snapshots = append(g.Snapshots, volume.Snapshot{ID: "s-" + v, Volume: v, Group: r.ID, Ready: true})
	}
	return g, f.err
}

func (f *fakeSnapshots) DeleteGroup(_ context.Context, id volume.ID) error {
	f.deleted = append(f.deleted, id)
	return f.err
}

func (f *fakeSnapshots) GetGroup(_ context.Context, id volume.ID) (volume.Group, error) {
	g, ok := f.groups[id]
	if !ok {
		return g, fmt.Errorf("group %s: %w", id, volume.ErrNotFound)
	}
	return g, f.err
}

// fakeEngine is a Modifier and a Health.
type fakeEngine struct {
	modified  volume.Attributes // the last ones
	unhealthy []volume.Health
	pools     []volume.PoolStatus
	err       error
}

func (f *fakeEngine) Modify(_ context.Context, _ volume.ID, a volume.Attributes) (volume.Volume, error) {
	f.modified = a
	return volume.Volume{}, f.err
}

func (f *fakeEngine) Health(_ context.Context, id volume.ID) (volume.Health, error) {
	for _, h := range f.unhealthy {
		if h.ID == id {
			return h, f.err
		}
	}
	return volume.Health{ID: id}, f.err
}

func (f *fakeEngine) Unhealthy(context.Context) ([]volume.Health, error) { return f.unhealthy, f.err }

func (f *fakeEngine) Pools(context.Context) []volume.PoolStatus { return f.pools }
