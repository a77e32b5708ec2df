//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestReadWriteMany: on a shared pool, pods on two nodes write to one claim
// and each reads what the other wrote.
func TestReadWriteMany(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "hostPath"} { // a local volume always has one node
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.sharedPool(), "volumeType": volumeType}), "32Mi", access(corev1.ReadWriteMany))
			two := e.nodeNames()[:2]
			for i, node := range two {
				e.pod(fmt.Sprint("pod-", i), "data", onlyOn(node))
			}
			for i, node := range two {
				pod := fmt.Sprint("pod-", i)
				if got := await(e, pods, pod, "ready", ready).Spec.NodeName; got != node {
					t.Errorf("pod %s is on %s, not %s", pod, got, node)
				}
				e.mustSh(pod, fmt.Sprintf("echo %s > /data/%s", pod, pod))
			}
			for i := range two {
				reader, writer := fmt.Sprint("pod-", i), fmt.Sprint("pod-", 1-i)
				if got := e.mustSh(reader, "cat /data/"+writer); got != writer {
					t.Errorf("%s reads %q from %s", reader, got, writer)
				}
			}
			if v := e.volumeOf("data"); v.pv.Spec.NodeAffinity != nil {
				t.Errorf("the volume of a shared pool is bound to nodes: %+v", v.pv.Spec.NodeAffinity)
			}
		})
	}
}

// TestReadOnlyMany: two pods on two nodes read one claim, and neither can write
// to it, though neither asks for a read-only mount.
func TestReadOnlyMany(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.class(params{"pool": e.sharedPool()})
	e.claim("source", class, "32Mi", access(corev1.ReadWriteMany))
	e.pod("writer", "source")
	await(e, pods, "writer", "ready", ready)
	e.mustSh("writer", "echo here > /data/file && sync")
	e.claim("data", class, "32Mi", access(corev1.ReadOnlyMany), cloning("source"))
	for i, node := range e.nodeNames()[:2] {
		reader := fmt.Sprint("reader-", i)
		e.pod(reader, "data", onlyOn(node))
		if got := await(e, pods, reader, "ready", ready).Spec.NodeName; got != node {
			t.Errorf("pod %s is on %s, not %s", reader, got, node)
		}
		if got := e.mustSh(reader, "cat /data/file"); got != "here" {
			t.Errorf("%s reads %q", reader, got)
		}
		for _, write := range []string{"echo mine > /data/file", "touch /data/new", "rm /data/file"} {
			if out, err := e.sh(reader, write); err == nil {
				t.Errorf("%s could %s: %s", reader, write, out)
			}
		}
	}
	if v := e.volumeOf("data"); v.pv.Spec.NodeAffinity != nil {
		t.Errorf("the volume of a shared pool is bound to nodes: %+v", v.pv.Spec.NodeAffinity)
	}
}

// TestReadWriteOncePod: while one pod has the claim, a second one stays
// Pending; when the first is gone, it gets the data.
func TestReadWriteOncePod(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "local", "hostPath"} {
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool("btrfs"), "volumeType": volumeType}), "32Mi", access(corev1.ReadWriteOncePod))
			e.pod("first", "data")
			await(e, pods, "first", "ready", ready)
			e.mustSh("first", "echo first > /data/file && sync")
			e.pod("second", "data")
			e.awaitEvent(pods, "second", "FailedScheduling", "ReadWriteOncePod")
			if got := get[corev1.Pod](e, pods, "second").Status.Phase; got != corev1.PodPending {
				t.Errorf("the second pod is %s while the first has the claim", got)
			}
			e.remove(pods, "first")
			await(e, pods, "second", "ready", ready)
			if got := e.mustSh("second", "cat /data/file"); got != "first" {
				t.Errorf("the second pod reads %q", got)
			}
		})
	}
}

// TestBlock: a raw block claim is a device of exactly its size, and keeps its
// bytes when the pod is replaced.
func TestBlock(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.claim("data", e.class(params{"pool": e.pool("image")}), "32Mi", block)
	e.pod("writer", "data", withDevice)
	await(e, pods, "writer", "ready", ready)
	if got := e.mustSh("writer", "blockdev --getsize64 /dev/volume"); got != fmt.Sprint(32<<20) {
		t.Errorf("the device of a 32 MiB claim has %s bytes", got)
	}
	e.mustSh("writer", "yes plinth | dd of=/dev/volume bs=4k count=4096 iflag=fullblock conv=fsync")
	sum := e.mustSh("writer", "md5sum < /dev/volume")
	e.remove(pods, "writer")
	e.awaitGone(pods, "writer")
	e.pod("reader", "data", withDevice)
	await(e, pods, "reader", "ready", ready)
	if got := e.mustSh("reader", "md5sum < /dev/volume"); got != sum {
		t.Errorf("the device reads back as %s, was written as %s", got, sum)
	}
	if got := e.mustSh("reader", "dd if=/dev/volume bs=7 count=1 2>/dev/null"); got != "plinth" {
		t.Errorf("the device begins with %q", got)
	}
}

// TestNonRoot: a pod that is not root can write, by way of its fsGroup, where
// Kubernetes gives one: on csi and local volumes.
func TestNonRoot(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		if c.volumeType == "hostPath" {
			continue
		}
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}, waiting), "32Mi")
			e.pod("pod", "data", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1234)), RunAsGroup: new(int64(1234)), FSGroup: new(int64(5678))}
			})
			await(e, pods, "pod", "ready", ready)
			if got := e.mustSh("pod", "echo mine > /data/file && id -u && stat -c %g /data/file && cat /data/file"); got != "1234\n5678\nmine" {
				t.Errorf("user, group and content of a file of its own: %q", got)
			}
		})
	}
}
