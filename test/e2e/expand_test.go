//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// expandable has the class let claims grow.
func expandable(c *storagev1.StorageClass) { c.AllowVolumeExpansion = new(true) }

// ask changes the size that a claim asks for.
func (e *env) ask(claim, size string) {
	e.Helper()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"resources": map[string]any{"requests": map[string]string{"storage": size}}}})
	e.must(err, "write a patch")
	_, err = e.kube.CoreV1().PersistentVolumeClaims(e.ns).Patch(e.ctx, claim, types.MergePatchType, patch, metav1.PatchOptions{})
	e.must(err, "ask for "+size)
}

// grown is what await wants of a claim that has size and no unfinished business.
func grown(size string) func(*corev1.PersistentVolumeClaim) error {
	want := apiresource.MustParse(size)
	return func(c *corev1.PersistentVolumeClaim) error {
		has := c.Status.Capacity[corev1.ResourceStorage]
		unfinished := slices.ContainsFunc(c.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
			return strings.Contains(string(c.Type), "Resiz")
		})
		if has.Cmp(want) < 0 || unfinished || len(c.Status.AllocatedResourceStatuses) > 0 {
			return fmt.Errorf("it has %s, conditions %v, resize status %v", has.String(), c.Status.Conditions, c.Status.AllocatedResourceStatuses)
		}
		return nil
	}
}

// TestExpand: a claim grows while a pod uses it, and holds what it says.
func TestExpand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ volumeType, backend, fsType string }{
		{"csi", "btrfs", ""},
		{"csi", "image", "xfs"},
		{"csi", "directory", ""},
		{"local", "btrfs", ""},
		{"local", "image", "xfs"},
		{"hostPath", "btrfs", ""},
		{"hostPath", "image", "xfs"},
	} {
		t.Run(strings.TrimSpace(c.volumeType+" on "+c.backend+" "+c.fsType), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool(c.backend), "volumeType": c.volumeType}
			if c.fsType != "" {
				p["csi.storage.k8s.io/fstype"] = c.fsType
			}
			e.claim("data", e.class(p, expandable, waiting), "400Mi") // less than that is no xfs
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "echo kept >/data/file; sync")
			e.ask("data", "600Mi")
			await(e, claims, "data", "grown", grown("600Mi"))
			v := e.volumeOf("data")
			if has := v.pv.Spec.Capacity[corev1.ResourceStorage]; has.Value() < 600<<20 {
				t.Errorf("the PersistentVolume has %s", has.String())
			}
			if v.Status.Size == nil || v.Status.Size.Value() < 600<<20 {
				t.Errorf("the PlinthVolume has %v", v.Status.Size)
			}
			if got := e.mustSh("writer", "cat /data/file"); got != "kept" {
				t.Errorf("the file says %q", got)
			}
			if !v.pool.Enforced {
				return
			}
			e.mustSh("writer", "dd if=/dev/urandom of=/data/big bs=1M count=480 conv=fsync")
			if out, err := e.sh("writer", "dd if=/dev/urandom of=/data/more bs=1M count=200 conv=fsync"); err == nil {
				t.Errorf("680 MiB went onto a volume of 600 MiB: %s", out)
			}
		})
	}
}

// TestExpandBlock: the device that a pod has open grows.
func TestExpandBlock(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.claim("data", e.class(params{"pool": e.pool("image")}, expandable, waiting), "32Mi", block)
	e.pod("user", "data", withDevice)
	await(e, pods, "user", "ready", ready)
	e.mustSh("user", "echo kept >/dev/volume; sync")
	e.ask("data", "64Mi")
	await(e, claims, "data", "grown", grown("64Mi"))
	// The last MiB of the new size can be written, and nothing after it.
	e.eventually("the pod's device has 64 MiB", func() error {
		size, err := e.sh("user", "blockdev --getsize64 /dev/volume")
		if err != nil {
			return err
		}
		if n, err := strconv.ParseInt(size, 10, 64); err != nil || n != 64<<20 {
			return fmt.Errorf("it has %s bytes", size)
		}
		return nil
	})
	e.mustSh("user", "dd if=/dev/urandom of=/dev/volume bs=1M seek=63 count=1 conv=fsync")
	if got := e.mustSh("user", "head -n1 /dev/volume"); got != "kept" {
		t.Errorf("the device begins with %q", got)
	}
}

// TestExpandTooMuch: a growth beyond the pool fails with an event, changes
// nothing, and is recovered from by asking for less.
func TestExpandTooMuch(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "local", "hostPath"} {
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool("btrfs"), "volumeType": volumeType}, expandable, waiting), "32Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.ask("data", "100Ti")
			e.awaitEvent(claims, "data", "VolumeResizeFailed", "100Ti")
			await(e, claims, "data", "told that it is too much", func(c *corev1.PersistentVolumeClaim) error {
				for _, cond := range c.Status.Conditions {
					if cond.Type == corev1.PersistentVolumeClaimControllerResizeError {
						return nil
					}
				}
				return fmt.Errorf("conditions %v", c.Status.Conditions)
			})
			if v := e.volumeOf("data"); v.Status.Size.Value() != 32<<20 {
				t.Errorf("the volume has %s", v.Status.Size)
			}
			e.ask("data", "48Mi")
			await(e, claims, "data", "grown", grown("48Mi"))
			if v := e.volumeOf("data"); v.Status.Size.Value() != 48<<20 {
				t.Errorf("the volume has %s", v.Status.Size)
			}
		})
	}
}
