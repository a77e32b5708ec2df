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
			wants(t, "a second target", n.PublishEphemeral(ctx, inline, n.path("other"), use(k), r), volume.ErrInUse)
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
