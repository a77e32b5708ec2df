//go:build root

package mounts

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestGrowUnderLoad grows XFS again and again while somebody writes to it, and
// finds what was written.
func TestGrowUnderLoad(t *testing.T) {
	k := kinds()[3]
	n := start(t, k)
	ctx, id := t.Context(), n.create(t, k)
	staging, pod := n.path("staging"), n.path("pod")
	must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, pod, use(k)))
	var stop atomic.Bool
	written := make(chan int)
	block := bytes.Repeat([]byte("plinth.."), 8<<10)
	go func() {
		blocks := 0
		defer func() { written <- blocks }()
		f, err := os.Create(pod + "/load")
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for !stop.Load() && blocks < 1000 {
			if _, err := f.Write(block); err != nil {
				t.Errorf("write while it grows: %v", err)
				return
			}
			if err := f.Sync(); err != nil {
				t.Errorf("sync while it grows: %v", err)
				return
			}
			blocks++
		}
	}()
	want := int64(size)
	for range 8 {
		want += 64 << 20
		if _, err := n.pools.Expand(ctx, id, want); err != nil {
			t.Fatal(err)
		}
		if got, err := n.Expand(ctx, id, pod); err != nil || got != want {
			t.Fatalf("%d, %v", got, err)
		}
		holds(t, n, id, pod, k, want)
	}
	stop.Store(true)
	blocks := <-written
	data, err := os.ReadFile(pod + "/load")
	must(t, err)
	if blocks == 0 || !bytes.Equal(data, bytes.Repeat(block, blocks)) {
		t.Errorf("%d blocks were written, %d bytes are there", blocks, len(data))
	}
	must(t, n.Unpublish(ctx, id, pod), n.Unstage(ctx, id, staging), n.pools.Delete(ctx, id))
}

// TestGrowLater: an ext4 that the kernel does not let this process grow while
// it is mounted says what is missing, stays usable, and is grown when it is
// staged next.
func TestGrowLater(t *testing.T) {
	if mayResize(t) {
		t.Skip("this process has CAP_SYS_RESOURCE: ext4 grows at once")
	}
	k := kinds()[2]
	n := start(t, k)
	ctx, id := t.Context(), n.create(t, k)
	staging, pod := n.path("staging"), n.path("pod")
	must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, pod, use(k)), put(pod, k, "hello"))
	if _, err := n.pools.Expand(ctx, id, 2*size); err != nil {
		t.Fatal(err)
	}
	_, err := n.Expand(ctx, id, pod)
	if !errors.Is(err, syscall.EPERM) || errors.Is(err, volume.ErrNotFound) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") || !strings.Contains(err.Error(), "mounted next") {
		t.Errorf("expand: %v", err)
	}
	holds(t, n, id, pod, k, size)
	must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, pod, use(k))) // kubelet was restarted
	must(t, put(pod, k, "again"), n.Unpublish(ctx, id, pod), n.Unstage(ctx, id, staging))
	must(t, n.Stage(ctx, id, staging, use(k)))
	holds(t, n, id, staging, k, 2*size)
	if got := get(t, staging, k, 5); got != "again" {
		t.Errorf("grown, it has %q", got)
	}
	must(t, n.Unstage(ctx, id, staging))
}
