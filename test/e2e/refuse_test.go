//go:build e2e

package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestRefused: what cannot be honoured is refused with an event on the claim
// that names the fault and what is allowed, and the claim stays Pending.
func TestRefused(t *testing.T) {
	t.Parallel()
	with := func(kv ...string) func(e *env) params {
		return func(e *env) params {
			p := params{"pool": e.pool("btrfs")}
			for i := 0; i < len(kv); i += 2 {
				p[kv[i]] = kv[i+1]
			}
			return p
		}
	}
	image := func(kv ...string) func(e *env) params {
		return func(e *env) params {
			p := with(kv...)(e)
			p["pool"] = e.pool("image")
			return p
		}
	}
	for _, c := range []struct {
		name    string
		params  func(e *env) params
		size    string
		change  func(*corev1.PersistentVolumeClaim)
		waiting bool     // bind with the first pod
		words   []string // of the event; POOL stands for the pool's name
	}{
		{name: "larger than any pool", params: with(), size: "512Ti", words: []string{"512Ti", "POOL", "free"}},
		{name: "larger than any pool, local", params: with("volumeType", "local"), size: "512Ti", words: []string{"512Ti", "POOL"}},
		{name: "unknown parameter", params: with("colour", "red"), words: []string{"colour", "volumeType", "pool"}},
		{name: "unknown parameter, waiting", params: with("colour", "red"), waiting: true, words: []string{"colour", "volumeType", "pool"}},
		{name: "unknown pool", params: with("pool", "nosuch"), words: []string{"nosuch", "POOL"}},
		{name: "unknown pool, waiting", params: with("pool", "nosuch"), waiting: true, words: []string{"nosuch", "POOL"}},
		{name: "unknown volume type", params: with("volumeType", "nfs"), words: []string{"nfs", "csi", "local", "hostPath"}},
		{name: "unknown filesystem", params: image("csi.storage.k8s.io/fstype", "ntfs"), words: []string{"ntfs", "ext4", "xfs"}},
		{name: "filesystem on btrfs", params: with("csi.storage.k8s.io/fstype", "xfs"), words: []string{"xfs", "POOL"}},
		{name: "ReadWriteMany on a node-local pool", params: with(), change: access(corev1.ReadWriteMany),
			words: []string{"ReadWriteMany", "POOL", "ReadWriteOnce", "shared"}},
		{name: "ReadWriteMany on a node-local pool, waiting", params: with(), change: access(corev1.ReadWriteMany), waiting: true,
			words: []string{"ReadWriteMany", "POOL", "ReadWriteOnce", "shared"}},
		{name: "ReadOnlyMany on a node-local pool", params: with(), change: access(corev1.ReadOnlyMany), words: []string{"ReadOnlyMany", "POOL", "shared"}},
		{name: "block on btrfs", params: with(), change: block, words: []string{"Block", "POOL", "image"}},
		{name: "block on btrfs, waiting", params: with(), change: block, waiting: true, words: []string{"Block", "POOL", "image"}},
		{name: "block with local", params: image("volumeType", "local"), change: block, words: []string{"Block", "local", "csi"}},
		{name: "ReadWriteMany with local", params: func(e *env) params { return params{"pool": e.sharedPool(), "volumeType": "local"} },
			change: access(corev1.ReadWriteMany), words: []string{"ReadWriteMany", "POOL"}},
		{name: "ReadWriteOnce and ReadWriteMany on a node-local pool", params: with(), change: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany}
		}, words: []string{"ReadWriteMany", "POOL", "shared"}},
		{name: "ReadWriteMany on an image", params: image(), change: access(corev1.ReadWriteMany), words: []string{"ReadWriteMany", "POOL", "ReadWriteOnce", "shared"}},
		{name: "ReadOnlyMany with local", params: func(e *env) params { return params{"pool": e.sharedPool(), "volumeType": "local"} },
			change: access(corev1.ReadOnlyMany), words: []string{"ReadOnlyMany", "POOL", "csi"}},
		{name: "ReadOnlyMany with hostPath", params: func(e *env) params { return params{"pool": e.sharedPool(), "volumeType": "hostPath"} },
			change: access(corev1.ReadOnlyMany), words: []string{"ReadOnlyMany", "hostPath", "POOL", "csi"}},
		{name: "block with hostPath", params: image("volumeType", "hostPath"), change: block, words: []string{"Block", "hostPath", "csi"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			size := c.size
			if size == "" {
				size = "32Mi"
			}
			p := c.params(e)
			pool := p["pool"]
			if pool == "nosuch" {
				pool = e.pool("btrfs")
			}
			var changes []func(*corev1.PersistentVolumeClaim)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			if c.waiting {
				e.claim("data", e.class(p, waiting), size, changes...)
				if strings.HasPrefix(c.name, "block") {
					e.pod("pod", "data", withDevice)
				} else {
					e.pod("pod", "data")
				}
			} else {
				e.claim("data", e.class(p), size, changes...)
			}
			words := make([]string, len(c.words))
			for i, w := range c.words {
				words[i] = strings.ReplaceAll(w, "POOL", pool)
			}
			t.Log(e.awaitEvent(claims, "data", "ProvisioningFailed", words...))
			if got := get[corev1.PersistentVolumeClaim](e, claims, "data").Status.Phase; got != corev1.ClaimPending {
				t.Errorf("the claim is %s", got)
			}
		})
	}
}

// TestTooLargeWaits: a pod whose claim fits nowhere stays Pending, and the
// scheduler says that it is for want of space.
func TestTooLargeWaits(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "local", "hostPath"} {
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool("btrfs"), "volumeType": volumeType}, waiting), "512Ti")
			e.pod("pod", "data")
			e.awaitEvent(pods, "pod", "FailedScheduling", "enough free storage")
			if got := get[corev1.PersistentVolumeClaim](e, claims, "data").Status.Phase; got != corev1.ClaimPending {
				t.Errorf("the claim is %s", got)
			}
		})
	}
}
