//go:build root

package mounts

import (
	"errors"
	"os"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

const inline volume.ID = "v-inline"

func inlineRequest(k kind) volume.Request {
	return volume.Request{Spec: volume.Spec{Size: size, Mode: k.mode, FSType: k.fsType}, Name: "csi-inline"}
}

// gone checks that nothing is left of a volume that was published at target.
func (n *node) gone(t *testing.T, id volume.ID, target string) {
	t.Helper()
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", target, err)
	}
	if _, err := n.pools.Get(t.Context(), id); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("the volume is there: %v", err)
	}
	if all, err := mount.AtOrBelow(n.base); err != nil || len(all) > 0 {
		t.Errorf("left mounted: %v, %v", all, err)
	}
}

func TestEphemeral(t *testing.T) {
	for _, k := range kinds() {
		if k.mode == volume.Block {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx, target, r := t.Context(), n.path("pod"), inlineRequest(k)
			reader := use(k)
			reader.ReadOnly = true
			must(t, n.PublishEphemeral(ctx, inline, target, use(k), r), n.PublishEphemeral(ctx, inline, target, use(k), r))
			must(t, put(target, k, "hello"))
			restricted(t, target, k)
			wants(t, "read-only over read-write", n.PublishEphemeral(ctx, inline, target, reader, r), volume.ErrExists)
			wants(t, "a second target", n.PublishEphemeral(ctx, inline, n.path("other"), use(k), r), volume.ErrExists)
			larger := r
			larger.Size *= 2
			wants(t, "another size", n.PublishEphemeral(ctx, inline, target, use(k), larger), volume.ErrExists)
			if got := get(t, target, k, 5); got != "hello" {
				t.Errorf("after the refusals it has %q", got)
			}
			must(t, n.Unpublish(ctx, inline, target))
			n.gone(t, inline, target)
			must(t, n.Unpublish(ctx, inline, target))

			// A refusal leaves nothing.
			odd := use(k)
			odd.Options = []string{"suid"}
			wants(t, "an option that is not allowed", n.PublishEphemeral(ctx, inline, target, odd, r), volume.ErrInvalid)
			n.gone(t, inline, target)

			// What lasts is not deleted.
			lasting := n.create(t, k)
			asked := r
			asked.Name = "pvc-1"
			wants(t, "the ID of one that lasts", n.PublishEphemeral(ctx, lasting, target, use(k), asked), volume.ErrExists)
			must(t, n.Unpublish(ctx, lasting, target))
			if _, err := n.pools.Get(ctx, lasting); err != nil {
				t.Errorf("a volume that lasts is gone: %v", err)
			}
			must(t, n.pools.Delete(ctx, lasting))
		})
	}
	k := kinds()[4]
	n := start(t, k)
	wants(t, "a block device", n.PublishEphemeral(t.Context(), inline, n.path("pod"), use(k), inlineRequest(k)), volume.ErrInvalid)
}

// TestAbandoned: an ephemeral volume whose pod went while the volume could not
// be looked at goes at the next start, and one whose pod may come back stays.
func TestAbandoned(t *testing.T) {
	for _, k := range []kind{kinds()[0], kinds()[3]} {
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx, r, place := t.Context(), inlineRequest(k), n.path("pods/uid/volumes/driver/name")
			target := place + "/mount"
			must(t, os.MkdirAll(place, 0o700), n.PublishEphemeral(ctx, inline, target, use(k), r), put(target, k, "hello"))
			must(t, n.reboot(), n.Restore(ctx), n.PublishEphemeral(ctx, inline, target, use(k), r))
			if got := get(t, target, k, 5); got != "hello" {
				t.Errorf("after a reboot the pod has %q", got)
			}
			// The pod goes while the node is down, and then kubelet's directory.
			must(t, n.reboot(), os.Rename(n.path("pods"), n.path("away")), n.Restore(ctx))
			if _, err := n.pools.Get(ctx, inline); err != nil {
				t.Errorf("it went while kubelet's directory was not to be seen: %v", err)
			}
			must(t, os.Rename(n.path("away"), n.path("pods")), os.RemoveAll(place), n.Restore(ctx), n.Restore(ctx))
			n.gone(t, inline, target)
			if left := loops(t, n.disk); len(left) > 0 {
				t.Errorf("attached: %v", left)
			}
		})
	}
}
