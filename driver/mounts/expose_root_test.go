//go:build root

package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestExpose: an exposed volume has a path that lasts, comes back after a
// reboot, and is in use while anybody binds it.
func TestExpose(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx, id := t.Context(), n.create(t, k)
			path, err := n.Expose(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			must(t, put(path, k, "hello"))
			if again, err := n.Expose(ctx, id); err != nil || again != path {
				t.Errorf("again: %q, %v", again, err)
			}
			if path == n.Service.path(id) {
				// Somebody unmounts it.
				must(t, mount.Unmount(path))
				if again, err := n.Expose(ctx, id); err != nil || again != path {
					t.Errorf("after it was unmounted: %q, %v", again, err)
				}
				// A reboot: nothing is mounted or attached, and no pod can be
				// given the place where the volume is not.
				must(t, mount.Unmount(path), mount.Unmount(n.path("mounts/live")), n.pools.Detach(ctx, id))
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("after a reboot the path is there without the volume: %v", err)
				}
			}
			n.pools.Close()
			n.open(t, k)
			must(t, n.Restore(ctx))
			if got := get(t, path, k, 5); got != "hello" {
				t.Errorf("restored, it has %q", got)
			}
			// kubelet binds it for a pod.
			pod := n.path("pod")
			if k.mode == volume.Block {
				must(t, os.WriteFile(pod, nil, 0o600))
			} else {
				must(t, os.Mkdir(pod, 0o700))
			}
			must(t, mount.BindPath(path, pod, mount.Flags{}))
			wants(t, "unexpose while a pod has it", n.Unexpose(ctx, id), volume.ErrInUse)
			if got := get(t, path, k, 5); got != "hello" {
				t.Errorf("in use and still exposed, it has %q", got)
			}
			must(t, mount.Unmount(pod), n.Unexpose(ctx, id), n.Unexpose(ctx, id))
			if left, err := os.ReadDir(n.path("mounts/live")); len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			must(t, n.pools.Delete(ctx, id), n.Unexpose(ctx, id), n.Restore(ctx))
		})
	}
}

// TestDiskGone: a pod can go when the pool's disk has gone, and the pool
// serves again when it is back.
func TestDiskGone(t *testing.T) {
	k := kinds()[2]
	n := start(t, k)
	ctx, id := t.Context(), n.create(t, k)
	staging, one := n.path("staging"), n.path("one")
	must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, one, use(k)))
	disks, err := mount.At(n.disk)
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	watch, stop := context.WithCancel(ctx)
	changed, watched := make(chan struct{}, 4), make(chan error, 1)
	go func() { watched <- n.pools.Watch(watch, func() { changed <- struct{}{} }) }()

	must(t, syscall.Unmount(n.disk, syscall.MNT_DETACH))
	<-changed
	if st := n.pools.Pools(ctx)[0]; st.State != volume.PoolUnavailable || st.UUID == "" {
		t.Errorf("%+v", st)
	}
	wants(t, "stage", n.Stage(ctx, id, n.path("other"), use(k)), volume.ErrPoolUnavailable)
	wants(t, "delete", n.pools.Delete(ctx, id), volume.ErrPoolUnavailable)
	must(t, n.Unpublish(ctx, id, one))
	wants(t, "unstage", n.Unstage(ctx, id, staging), volume.ErrPoolUnavailable)
	if left, err := os.ReadDir(n.disk); err != nil || len(left) > 0 {
		t.Errorf("written below the disk: %v, %v", left, err)
	}

	must(t, mount.Device(disks[0].Source, n.disk, k.disk, nil))
	<-changed
	must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, one, use(k)), put(one, k, "hello"))
	must(t, n.Unpublish(ctx, id, one), n.Unstage(ctx, id, staging), n.pools.Delete(ctx, id))
	stop()
	must(t, <-watched)
}

// TestExposePath: a volume with a path is exposed at a link that leads to it
// while it is mounted, and to nothing else while it is not.
func TestExposePath(t *testing.T) {
	for _, k := range kinds() {
		if k.mode == volume.Block {
			continue // the control plane offers those by csi only
		}
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx := t.Context()
			v, err := n.pools.Create(ctx, volume.Request{Spec: volume.Spec{Size: size, Mode: k.mode, FSType: k.fsType}, Name: "pvc-1", Path: "shop/data"})
			must(t, err)
			at, err := n.Expose(ctx, v.ID)
			if err != nil || at != filepath.Join(n.disk, "paths/shop/data") {
				t.Fatal(at, err)
			}
			must(t, put(at, k, "hello"))
			pod := n.path("pod")
			must(t, os.Mkdir(pod, 0o700), syscall.Mount(at, pod, "", syscall.MS_BIND, "")) // which follows links, as kubelet's does
			if got := get(t, pod, k, 5); got != "hello" {
				t.Errorf("a pod has %q", got)
			}
			wants(t, "unexpose while a pod has it", n.Unexpose(ctx, v.ID), volume.ErrInUse)
			must(t, mount.Unmount(pod))
			if k.fsType != "" { // a reboot
				must(t, mount.Unmount(n.Service.path(v.ID)), mount.Unmount(n.path("mounts/live")), n.pools.Detach(ctx, v.ID))
				if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("after a reboot the path leads to %v", err)
				}
				if err := os.MkdirAll(at, 0o700); err == nil {
					t.Error("an empty directory can be made in its place")
				}
			}
			n.pools.Close()
			n.open(t, k)
			must(t, n.Restore(ctx))
			if got := get(t, at, k, 5); got != "hello" {
				t.Errorf("restored, it has %q", got)
			}
			must(t, n.Unexpose(ctx, v.ID), n.pools.Delete(ctx, v.ID))
			if left, err := os.ReadDir(filepath.Join(n.disk, "paths")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
