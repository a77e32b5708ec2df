//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// inline has the pod's volume written in the pod itself.
func inline(attributes map[string]string, fsType string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		source := &corev1.CSIVolumeSource{Driver: driverName, VolumeAttributes: attributes}
		if fsType != "" {
			source.FSType = &fsType
		}
		p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: source}
	}
}

// TestInline: a volume that is written in a pod is made and limited for it,
// and goes with it.
func TestInline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ backend, fsType string }{{"btrfs", ""}, {"image", "ext4"}} {
		t.Run(c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			pool := e.pool(c.backend)
			e.pod("pod", "", inline(params{"pool": pool, "size": "64Mi"}, c.fsType))
			p := await(e, pods, "pod", "ready", ready)
			e.mustSh("pod", "dd if=/dev/urandom of=/data/file bs=1M count=32 conv=fsync")
			if out, err := e.sh("pod", "dd if=/dev/urandom of=/data/more bs=1M count=64 conv=fsync"); err == nil {
				t.Errorf("96 MiB went onto a volume of 64 MiB: %s", out)
			}
			if e.binary != "" && e.inlineRecords(p, pool) == "" {
				t.Fatal("no record tells of the volume")
			}
			e.remove(pods, "pod")
			e.awaitGone(pods, "pod")
			e.awaitInlineGone(p, pool)
		})
	}
}

// inlineRecords lists the records of a pod's inline volumes on its node.
func (e *env) inlineRecords(p *corev1.Pod, pool string) string {
	e.Helper()
	if e.binary == "" {
		return "" // no way to look
	}
	dir := e.poolOn(p.Spec.NodeName, pool).Path
	return e.mustOnNode(p.Spec.NodeName, "sh", "-c", fmt.Sprintf("grep -ls '\"ephemeral\": true' %s/.plinth/volumes/*.json | xargs -r grep -ls %s || true", dir, p.UID))
}

// awaitInlineGone waits until a pod's inline volumes are gone from its node.
func (e *env) awaitInlineGone(p *corev1.Pod, pool string) {
	e.Helper()
	e.eventually("the inline volume of pod "+p.Name+" is gone", func() error {
		if left := e.inlineRecords(p, pool); left != "" {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
}

// TestInlineRefused: the pod is told what is wrong with its volume.
func TestInlineRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for name, c := range map[string]struct {
		attributes params
		says       string
	}{
		"bad-size":    {params{"pool": e.pool("btrfs"), "size": "big"}, "big"},
		"no-pool":     {params{"size": "1Mi", "pool": "none"}, "none"},
		"unknown-key": {params{"size": "1Mi", "sise": "1Mi"}, "sise"},
	} {
		e.pod(name, "", inline(c.attributes, ""))
		t.Logf("%s: %s", name, e.awaitEvent(pods, name, "FailedMount", c.says))
	}
}
