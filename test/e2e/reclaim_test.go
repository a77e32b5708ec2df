//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// variants are the ways in which a node-local volume can be kept and offered.
var variants = []struct{ volumeType, backend string }{
	{"csi", "btrfs"}, {"csi", "image"}, {"local", "btrfs"}, {"local", "image"}, {"hostPath", "btrfs"}, {"hostPath", "image"},
}

// TestDeleteFreesBytes: once a claim with data is deleted, nothing of the
// volume is left on its node.
func TestDeleteFreesBytes(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}), "32Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "dd if=/dev/urandom of=/data/bytes bs=1M count=16 && sync")
			v := e.volumeOf("data")
			if len(e.onDisk(v)) == 0 {
				t.Fatalf("nothing of %s is to be seen on its node %s below %s", v.Name, v.Spec.NodeName, v.pool.Path)
			}
			// In this order: the claim is protected until its pod is gone.
			e.remove(claims, "data")
			e.remove(pods, "writer")
			e.awaitGone(claims, "data")
			e.awaitFreed(v)
		})
	}
}

// TestCapacityReturns: what a pool offers shrinks by a volume's size and is
// the same as before once the volume is deleted.
func TestCapacityReturns(t *testing.T) { // alone: others change the pools too
	for _, backend := range []string{"btrfs", "image"} {
		t.Run(backend, func(t *testing.T) {
			e := newEnv(t)
			const size = 64 << 20
			before := map[string]v1alpha1.PoolStatus{}
			for _, node := range e.nodeNames() {
				before[node] = e.poolOn(node, e.pool(backend))
			}
			e.claim("data", e.class(params{"pool": e.pool(backend)}), "64Mi")
			v := e.volumeOf("data")
			was := before[v.Spec.NodeName]
			e.awaitPool(v, "with the volume reserved", func(p v1alpha1.PoolStatus) error {
				return same(p, was.Available.Value()-size, was.Reserved.Value()+size, was.Volumes+1)
			})
			e.remove(claims, "data")
			e.awaitFreed(v)
			e.awaitPool(v, "as it was before the volume", func(p v1alpha1.PoolStatus) error {
				return same(p, was.Available.Value(), was.Reserved.Value(), was.Volumes)
			})
		})
	}
}

// same compares a pool with what it should report.
func same(p v1alpha1.PoolStatus, available, reserved int64, volumes int32) error {
	if !nearly(p.Available.Value(), available) || p.Reserved.Value() != reserved || p.Volumes != volumes {
		return fmt.Errorf("available %d, reserved %d, volumes %d; should be %d, %d, %d",
			p.Available.Value(), p.Reserved.Value(), p.Volumes, available, reserved, volumes)
	}
	return nil
}

// awaitPool watches the status of the pool that a volume is in.
func (e *env) awaitPool(v placed, what string, check func(v1alpha1.PoolStatus) error) {
	e.Helper()
	await(e, plinthNodes, v.Spec.NodeName, what, func(n *v1alpha1.PlinthNode) error {
		for _, p := range n.Status.Pools {
			if p.Name == v.Spec.Pool {
				return check(p)
			}
		}
		return fmt.Errorf("no pool %s", v.Spec.Pool)
	})
}

// TestRetain: with reclaim policy Retain the PersistentVolume is Released and
// the data stays, also after the PersistentVolume is deleted; only when an
// administrator deletes the PlinthVolume are the bytes freed.
func TestRetain(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}, retaining), "32Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "echo kept > /data/file && sync")
			v := e.volumeOf("data")
			e.remove(pods, "writer")
			e.awaitGone(pods, "writer")
			e.remove(claims, "data")
			await(e, volumes, v.Name, "Released", func(pv *corev1.PersistentVolume) error {
				if pv.Status.Phase != corev1.VolumeReleased {
					return fmt.Errorf("phase %s", pv.Status.Phase)
				}
				return nil
			})
			e.hasBytes(v)
			e.remove(volumes, v.Name)
			e.awaitGone(volumes, v.Name)
			e.hasBytes(v)
			if pvol := get[v1alpha1.PlinthVolume](e, plinthVols, v.Name); pvol == nil || pvol.DeletionTimestamp != nil {
				t.Fatalf("PlinthVolume %s went with its PersistentVolume: %+v", v.Name, pvol)
			}
			e.removeRetained(v.Name)
			e.awaitFreed(v)
		})
	}
}

// hasBytes checks on the node that a volume's data is there: the file that
// was written, or the image that holds it.
func (e *env) hasBytes(v placed) {
	e.Helper()
	for _, p := range v.paths() {
		if _, err := e.onNode(v.Spec.NodeName, "test", "-e", p); err != nil {
			continue
		}
		if v.pool.Backend == "image" {
			return
		}
		if got := e.mustOnNode(v.Spec.NodeName, "cat", p+"/file"); got != "kept" {
			e.Errorf("file on retained volume %s holds %q", v.Name, got)
		}
		return
	}
	e.Errorf("retained volume %s is not at any of %v on node %s", v.Name, v.paths(), v.Spec.NodeName)
}
