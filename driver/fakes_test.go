package driver

import (
	"context"
	"fmt"

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
	v := volume.Volume{Spec: r.Spec, Name: r.Name, Pool: r.Pool, Node: "node-1"}
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
	use             volume.Use
	staging, target string
	usage           volume.Usage
}

func (f *fakeMounter) Mode(ctx context.Context, id volume.ID) (volume.Mode, error) {
	v, err := f.Get(ctx, id)
	return v.Mode, err
}

func (f *fakeMounter) Stage(_ context.Context, _ volume.ID, staging string, u volume.Use) error {
	f.staging, f.use = staging, u
	return f.err
}

func (f *fakeMounter) Unstage(context.Context, volume.ID, string) error { return f.err }

func (f *fakeMounter) Publish(_ context.Context, _ volume.ID, staging, target string, u volume.Use) error {
	f.staging, f.target, f.use = staging, target, u
	return f.err
}

func (f *fakeMounter) Unpublish(context.Context, volume.ID, string) error { return f.err }

func (f *fakeMounter) Stats(context.Context, volume.ID, string) (volume.Usage, error) {
	return f.usage, f.err
}

func (f *fakeMounter) Expand(ctx context.Context, id volume.ID, _ string) (int64, error) {
	v, err := f.Get(ctx, id)
	return v.Size, err
}
