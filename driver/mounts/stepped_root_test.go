//go:build root

package mounts

import (
	"context"
	"errors"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

var errCut = errors.New("cut")

// The ways in which an operation on the machine goes wrong.
const (
	refused = "refused" // it has no effect, once
	unheard = "unheard" // it has its effect and is said to have failed, once
	crash   = "crash"   // neither it nor any that follows has an effect
)

// cutter has operation number n, counted from 0, go wrong.
type cutter struct {
	n    int
	how  string
	hit  bool
	last string // the operation that was hit
}

func (c *cutter) do(operation string, f func() error) error {
	if c.hit {
		if c.how == crash {
			return errCut
		}
		return f()
	}
	if c.n--; c.n >= 0 {
		return f()
	}
	c.hit, c.last = true, operation
	if c.how == unheard {
		return errors.Join(f(), errCut)
	}
	return errCut
}

// cutHost is the machine, cut.
type cutHost struct {
	Host
	c *cutter
}

func (h cutHost) Mounts() (all []mount.Mount, err error) {
	return all, h.c.do("list mounts", func() error { all, err = h.Host.Mounts(); return err })
}

func (h cutHost) MakeDir(path string) error {
	return h.c.do("make directory "+path, func() error { return h.Host.MakeDir(path) })
}

func (h cutHost) MakeFile(path string) error {
	return h.c.do("make file "+path, func() error { return h.Host.MakeFile(path) })
}

func (h cutHost) Rename(from, to string) error {
	return h.c.do("rename "+from+" to "+to, func() error { return h.Host.Rename(from, to) })
}

func (h cutHost) Remove(path string) error {
	return h.c.do("remove "+path, func() error { return h.Host.Remove(path) })
}

func (h cutHost) Bind(source, target string, flags mount.Flags) error {
	return h.c.do("bind "+source+" on "+target, func() error { return h.Host.Bind(source, target, flags) })
}

func (h cutHost) Mount(ctx context.Context, device, target, fsType string, options []string) error {
	return h.c.do("mount at "+target, func() error { return h.Host.Mount(ctx, device, target, fsType, options) })
}

func (h cutHost) Unmount(target string) error {
	return h.c.do("unmount "+target, func() error { return h.Host.Unmount(target) })
}

func (h cutHost) Grow(target string) error {
	return h.c.do("grow "+target, func() error { return h.Host.Grow(target) })
}

func (h cutHost) DeviceNumber(device string) (major, minor int, err error) {
	return major, minor, h.c.do("number of "+device, func() error { major, minor, err = h.Host.DeviceNumber(device); return err })
}

func (h cutHost) DeviceReadOnly(device string) (is bool, err error) {
	return is, h.c.do("read-only of "+device, func() error { is, err = h.Host.DeviceReadOnly(device); return err })
}

func (h cutHost) SetDeviceReadOnly(device string, readOnly bool) error {
	return h.c.do("set read-only of "+device, func() error { return h.Host.SetDeviceReadOnly(device, readOnly) })
}

// cutVolumes is the pools, cut where they change something.
type cutVolumes struct {
	Volumes
	c *cutter
}

func (v cutVolumes) Create(ctx context.Context, r volume.Request) (made volume.Volume, err error) {
	return made, v.c.do("create", func() error { made, err = v.Volumes.Create(ctx, r); return err })
}

func (v cutVolumes) DeleteEphemeral(ctx context.Context, id volume.ID) error {
	return v.c.do("delete", func() error { return v.Volumes.DeleteEphemeral(ctx, id) })
}

func (v cutVolumes) Attach(ctx context.Context, id volume.ID) (src backend.Source, err error) {
	return src, v.c.do("attach", func() error { src, err = v.Volumes.Attach(ctx, id); return err })
}

func (v cutVolumes) Detach(ctx context.Context, id volume.ID) error {
	return v.c.do("detach", func() error { return v.Volumes.Detach(ctx, id) })
}

func (v cutVolumes) SetExposed(ctx context.Context, id volume.ID, exposed bool) error {
	return v.c.do("set exposed", func() error { return v.Volumes.SetExposed(ctx, id, exposed) })
}

func (v cutVolumes) Name(ctx context.Context, id volume.ID, target string) (path string, err error) {
	return path, v.c.do("name", func() error { path, err = v.Volumes.Name(ctx, id, target); return err })
}
