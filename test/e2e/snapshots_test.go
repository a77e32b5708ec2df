//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The kinds of the snapshot-controller, and Plinth's own.
var (
	snapshotClasses = kind{schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotclasses"}, false}
	snapshots       = kind{schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}, true}
	plinthSnaps     = kind{v1alpha1.GroupVersion.WithResource("plinthsnapshots"), false}
)

// snapshotClass makes a VolumeSnapshotClass that is removed with the test.
func (e *env) snapshotClass() string {
	e.Helper()
	name := e.ns + "-snapshots"
	e.apply(fmt.Sprintf("{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: %s}, driver: %s, deletionPolicy: Delete}", name, driverName))
	e.Cleanup(func() { e.remove(snapshotClasses, name) })
	return name
}

// snapshot takes a VolumeSnapshot of a claim and waits until it can be used.
// It returns the name of the PlinthSnapshot.
func (e *env) snapshot(name, class, claim string) string {
	e.Helper()
	e.apply(fmt.Sprintf("{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: %s}, spec: {volumeSnapshotClassName: %s, source: {persistentVolumeClaimName: %s}}}", name, class, claim))
	s := await(e, snapshots, name, "ready", func(u *map[string]any) error {
		if ready, _, _ := unstructured.NestedBool(*u, "status", "readyToUse"); !ready {
			return fmt.Errorf("status %v", (*u)["status"])
		}
		return nil
	})
	uid, _, _ := unstructured.NestedString(*s, "metadata", "uid")
	return "snapshot-" + uid
}

// restoring has a claim start with a VolumeSnapshot, cloning with a claim.
func restoring(name string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: new("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: name}
	}
}

func cloning(name string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: name}
	}
}

// TestSnapshotRestoreClone: a snapshot keeps the moment it was taken at while
// its volume goes on; what is restored or cloned is where the data is, though
// its claim waits for its first consumer; and a snapshot outlives its volume.
func TestSnapshotRestoreClone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		backend, size, fsType string
		twice, fits, over     string
	}{
		{"btrfs", "32Mi", "", "64Mi", "48M", "80M"},
		{"image", "320Mi", "xfs", "640Mi", "480M", "800M"},
	} {
		t.Run(c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool(c.backend)}
			if c.fsType != "" {
				p["csi.storage.k8s.io/fstype"] = c.fsType
			}
			class := e.class(p, waiting)
			e.claim("data", class, c.size)
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "echo one > /data/file && sync")
			first := e.snapshot("first", e.snapshotClass(), "data")
			e.mustSh("writer", "echo two > /data/file && sync")
			node := e.volumeOf("data").Spec.NodeName

			e.claim("restored", class, c.size, restoring("first"))
			e.awaitEvent(claims, "restored", "SteeredToSource", node)
			e.claim("cloned", class, c.size, cloning("data"))
			for claim, want := range map[string]string{"restored": "one", "cloned": "two"} {
				e.pod(claim, claim)
				await(e, pods, claim, "ready", ready)
				if got := e.mustSh(claim, "cat /data/file && echo more > /data/file"); got != want {
					t.Errorf("%s starts with %q, want %q", claim, got, want)
				}
				if v := e.volumeOf(claim); v.Spec.NodeName != node || v.Spec.Source == nil {
					t.Errorf("%s is on %s, with the source %v", claim, v.Spec.NodeName, v.Spec.Source)
				}
			}
			if got := e.mustSh("writer", "cat /data/file"); got != "two" {
				t.Errorf("the source has %q", got)
			}

			source := e.volumeOf("data")
			e.remove(pods, "writer")
			e.remove(claims, "data")
			e.awaitFreed(source)
			e.claim("later", class, c.twice, restoring("first"))
			e.pod("later", "later")
			await(e, pods, "later", "ready", ready)
			e.mustSh("later", "fallocate -l "+c.fits+" /data/large")
			if out, err := e.sh("later", "fallocate -l "+c.over+" /data/larger"); err == nil {
				t.Errorf("%s went onto a volume of %s: %s", c.over, c.twice, out)
			}
			if got := e.mustSh("later", "cat /data/file"); got != "one" {
				t.Errorf("without its volume the snapshot gives %q", got)
			}
			e.remove(snapshots, "first")
			e.awaitGone(plinthSnaps, first)
			if left := e.mustOnNode(node, "sh", "-c", "find "+source.pool.Path+"/snapshots "+source.pool.Path+"/.plinth -name '*"+first+"*'"); left != "" {
				t.Errorf("left of the snapshot: %s", left)
			}
		})
	}
}

// TestSourceRefused: what cannot be restored or cloned as asked is told to the
// claim, and nothing is made.
func TestSourceRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pool, other := e.pool("btrfs"), e.pool("image")
	at := e.class(params{"pool": pool})
	e.claim("data", at, "32Mi")
	v := e.volumeOf("data")
	e.snapshot("first", e.snapshotClass(), "data")
	for _, c := range []struct {
		name, class, size string
		source            func(*corev1.PersistentVolumeClaim)
		says              []string
	}{
		{"smaller", at, "16Mi", restoring("first"), []string{"32Mi", "16Mi"}},
		{"elsewhere", e.class(params{"pool": other}), "32Mi", cloning("data"), []string{pool, other}},
		{"early", at, "32Mi", restoring("none"), []string{"none", "does not exist"}},
	} {
		e.claim(c.name, c.class, c.size, c.source)
		e.awaitEvent(claims, c.name, "ProvisioningFailed", c.says...)
	}
	// A pod that excludes the data's node keeps its claim from being placed anywhere.
	var elsewhere string
	for _, n := range e.nodeNames() {
		if n != v.Spec.NodeName {
			elsewhere = n
		}
	}
	e.pod("far", "far", onlyOn(elsewhere))
	e.claim("far", e.class(params{"pool": pool}, waiting), "32Mi", restoring("first"))
	e.awaitEvent(claims, "far", "SourceNodeExcluded", v.Spec.NodeName, "pod far")
	e.remove(snapshots, "first")
}
