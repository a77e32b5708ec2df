package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/volume"
)

// read reads the claim of a volume.
func (b *Device) read(id volume.ID) (claim, error) {
	if err := layout.Check(id); err != nil {
		return claim{}, err
	}
	c, err := b.host.Read(b.kind.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return claim{}, volume.ErrNotFound
	}
	return c, err
}

// Get reads one volume; its disk need not be there.
func (b *Device) Get(_ context.Context, id volume.ID) (volume.Info, error) {
	c, err := b.read(id)
	if err != nil {
		return volume.Info{}, fmt.Errorf("get volume %s: %w", id, err)
	}
	return c.info(id), nil
}

func (c claim) info(id volume.ID) volume.Info {
	return volume.Info{ID: id, Size: c.Size, Allocated: c.Size}
}

// List reads all volumes.
func (b *Device) List(context.Context) ([]volume.Info, error) {
	whole, _, err := b.claims()
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []volume.Info
	for _, id := range slices.Sorted(maps.Keys(whole)) {
		out = append(out, whole[id].info(id))
	}
	return out, nil
}

// Attach gives the disk, by the name that it has now.
func (b *Device) Attach(_ context.Context, id volume.ID) (backend.Source, error) {
	src, err := b.attach(id)
	if err != nil {
		return backend.Source{}, fmt.Errorf("attach volume %s: %w", id, err)
	}
	return src, nil
}

func (b *Device) attach(id volume.ID) (backend.Source, error) {
	c, err := b.read(id)
	if err != nil {
		return backend.Source{}, err
	}
	d, err := b.find(c)
	if err != nil {
		return backend.Source{}, err
	}
	boot, err := b.host.Boot()
	if err != nil {
		return backend.Source{}, err
	}
	if c.Attached != boot {
		c.Attached = boot
		if err := b.host.Write(b.kind.Path(id), c); err != nil {
			return backend.Source{}, err
		}
	}
	src := backend.Source{Device: d.Path}
	if c.Holds != block {
		src.FSType = string(c.Holds)
	}
	return src, nil
}

// Detach lets go of the disk; ErrInUse while it is mounted.
func (b *Device) Detach(_ context.Context, id volume.ID) error {
	err := b.detach(id)
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return fmt.Errorf("detach volume %s: %w", id, err)
	}
	return nil
}

func (b *Device) detach(id volume.ID) error {
	c, err := b.read(id)
	if err != nil || c.Attached == "" {
		return err
	}
	d, err := b.find(c)
	if err == nil {
		err = errors.Join(b.host.Idle(d), b.host.Release(d))
	}
	if err != nil && !errors.Is(err, volume.ErrPoolUnavailable) { // a disk that was pulled has no user
		return err
	}
	c.Attached = ""
	return b.host.Write(b.kind.Path(id), c)
}

// Devices implements backend.Locator. A disk that is away has no name.
func (b *Device) Devices(context.Context) (map[volume.ID]string, error) {
	whole, _, err := b.claims()
	if err != nil {
		return nil, fmt.Errorf("devices of volumes: %w", err)
	}
	boot, err := b.host.Boot()
	if err != nil {
		return nil, fmt.Errorf("devices of volumes: %w", err)
	}
	disks, err := b.host.Disks()
	if err != nil {
		return nil, fmt.Errorf("devices of volumes: %w", err)
	}
	out := map[volume.ID]string{}
	for id, c := range whole {
		if c.Attached != boot {
			continue
		}
		if d, err := c.among(disks); err == nil {
			out[id] = d.Path
		}
	}
	return out, nil
}

// Usage is what the filesystem says where it is mounted. How much of a raw
// disk is used nobody can tell: it has a size only.
func (b *Device) Usage(_ context.Context, id volume.ID, mountedAt string) (volume.Usage, error) {
	c, err := b.read(id)
	u := volume.Usage{TotalBytes: c.Size}
	if err == nil && mountedAt != "" {
		u, err = b.host.Space(mountedAt)
	}
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", id, err)
	}
	return u, nil
}

// Capacity is the disks of volumes and the free ones. What is neither, because
// it is somebody's or is being wiped, does not count.
func (b *Device) Capacity(ctx context.Context) (volume.Capacity, error) {
	// The claims first: a disk that is taken in between then counts twice and
	// not as nothing.
	whole, _, err := b.claims()
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
	}
	free, err := b.free(ctx)
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("capacity: %w", err)
	}
	out := volume.Capacity{Enforced: true, Whole: true, MinVolume: 1}
	for _, c := range whole {
		out.Total += c.Size
		out.MaxVolume = max(out.MaxVolume, c.Size)
	}
	for _, d := range free {
		out.Total, out.Free = out.Total+d.Size, out.Free+d.Size
		out.LargestFree = max(out.LargestFree, d.Size)
	}
	out.MaxVolume = max(out.MaxVolume, out.LargestFree)
	return out, nil
}

// Problems implements backend.Reporter: the disks that the pool's patterns
// find and that it must not use, and the claims whose disk is not there.
func (b *Device) Problems(context.Context) []string {
	b.seen.Lock()
	out := slices.Clone(b.seen.problems)
	b.seen.Unlock()
	whole, _, err := b.claims()
	if err != nil {
		return append(out, err.Error())
	}
	for _, id := range slices.Sorted(maps.Keys(whole)) {
		if _, err := b.find(whole[id]); err != nil {
			out = append(out, fmt.Sprintf("volume %s: %v", id, err))
		}
	}
	return out
}
