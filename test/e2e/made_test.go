//go:build e2e

package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// asUser has the pod's processes run as a user without a group of its volumes.
func asUser(uid int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid, RunAsGroup: &uid}
	}
}

// TestRootDirectory: the root directory of a volume of any type and backend
// belongs to whom the class says, so that its pod needs neither root nor
// fsGroup, and so does that of a volume written in a pod.
func TestRootDirectory(t *testing.T) {
	t.Parallel()
	const uid = 70123
	rooted := func(p params) params {
		p["mode"], p["owner"] = "2750", "70123:70456"
		return p
	}
	check := func(e *env) {
		e.Helper()
		await(e, pods, "pod", "ready", ready)
		if got := e.mustSh("pod", "echo mine > /data/file && stat -c '%a %u %g' /data && stat -c '%u %g' /data/file"); got != "2750 70123 70456\n70123 70456" {
			e.Errorf("the root directory and a file in it are %q", got)
		}
	}
	for _, c := range []struct{ volumeType, backend, fsType string }{
		{"csi", "btrfs", ""}, {"csi", "image", "ext4"}, {"local", "image", "xfs"}, {"hostPath", "btrfs", ""}, {"hostPath", "directory", ""},
	} {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := rooted(params{"pool": e.pool(c.backend), "volumeType": c.volumeType})
			size := "32Mi"
			if c.fsType != "" {
				p["csi.storage.k8s.io/fstype"], size = c.fsType, "320Mi"
			}
			e.claim("data", e.class(p), size)
			e.pod("pod", "data", asUser(uid))
			check(e)
		})
	}
	t.Run("written in a pod", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		e.pod("pod", "", inline(rooted(params{"pool": e.pool("btrfs"), "size": "32Mi"}), ""), asUser(uid))
		check(e)
	})
}

// TestMadeAsAsked: a thick image has its bytes from the start, and its
// filesystem is made with the options of the class.
func TestMadeAsAsked(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.claim("data", e.class(params{
		"pool": e.pool("image"), "csi.storage.k8s.io/fstype": "ext4", "provisioning": "thick", "mkfsOptions": "-N 4096",
	}), "64Mi")
	e.pod("pod", "data")
	await(e, pods, "pod", "ready", ready)
	inodes, err := strconv.Atoi(e.mustSh("pod", "stat -f -c %c /data"))
	if err != nil || inodes < 4096 || inodes > 5000 {
		t.Errorf("%d inodes (%v), asked were 4096", inodes, err)
	}
	v := e.volumeOf("data")
	blocks, err := strconv.Atoi(e.mustOnNode(v.Spec.NodeName, "stat", "-c", "%b", v.paths()[1]))
	if err != nil || blocks*512 < 64<<20 {
		t.Errorf("%d blocks of the image are allocated (%v)", blocks, err)
	}
}

// TestScrub: where the device below a pool discards, a volume is scrubbed when
// it goes; elsewhere its claim is refused at once.
func TestScrub(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"btrfs", "image"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			pool := e.pool(backend)
			able := true
			for _, node := range e.nodeNames() {
				able = able && slices.Contains(e.poolOn(node, pool).Abilities, "Scrub")
			}
			e.claim("data", e.class(params{"pool": pool, "onDelete": "scrub"}), "32Mi")
			if !able {
				e.awaitEvent(claims, "data", "ProvisioningFailed", pool, "onDelete: scrub", "backend device")
				return
			}
			v := e.volumeOf("data")
			if record := e.mustOnNode(v.Spec.NodeName, "cat", v.pool.Path+"/.plinth/volumes/"+v.Name+".json"); !strings.Contains(record, `"onDelete": "scrub"`) {
				t.Errorf("the record says\n%s", record)
			}
			// What is made of a volume never changes.
			_, err := e.of(plinthVols).Patch(e.ctx, v.Name, mergePatch, []byte(`{"spec":{"onDelete":"delete"}}`), metav1.PatchOptions{})
			if err == nil {
				t.Error("onDelete of a PlinthVolume can be changed")
			}
			e.remove(claims, "data")
			e.awaitFreed(v)
		})
	}
}
