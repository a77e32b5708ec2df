//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The kinds of groups.
var (
	groupClasses   = kind{schema.GroupVersionResource{Group: "groupsnapshot.storage.k8s.io", Version: "v1", Resource: "volumegroupsnapshotclasses"}, false}
	groupSnapshots = kind{schema.GroupVersionResource{Group: "groupsnapshot.storage.k8s.io", Version: "v1", Resource: "volumegroupsnapshots"}, true}
)

// group asks for a VolumeGroupSnapshot of the claims with a label.
func (e *env) group(name, label string) {
	e.Helper()
	class := e.ns + "-groups"
	e.apply(fmt.Sprintf("{apiVersion: groupsnapshot.storage.k8s.io/v1, kind: VolumeGroupSnapshotClass, metadata: {name: %s}, driver: %s, deletionPolicy: Delete}", class, driverName))
	e.Cleanup(func() { e.remove(groupClasses, class) })
	e.apply(fmt.Sprintf("{apiVersion: groupsnapshot.storage.k8s.io/v1, kind: VolumeGroupSnapshot, metadata: {name: %s}, spec: {volumeGroupSnapshotClassName: %s, source: {selector: {matchLabels: {group: %s}}}}}", name, class, label))
}

// labelled puts a claim into a group.
func labelled(group string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"group": group} }
}

// withBoth gives a pod a second claim, at /more.
func withBoth(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "more", MountPath: "/more"})
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "more", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
	}
}

// ofGroup lists what Plinth has of the snapshots of volumes.
func (e *env) ofGroup(of ...placed) []*v1alpha1.PlinthSnapshot {
	e.Helper()
	var out []*v1alpha1.PlinthSnapshot
	for _, s := range list[v1alpha1.PlinthSnapshot](e, plinthSnaps) {
		for _, v := range of {
			if s.Spec.Volume == v.Name {
				out = append(out, s)
			}
		}
	}
	return out
}

// memberOf finds the VolumeSnapshot of a claim among those of a group.
func (e *env) memberOf(claim string) string {
	e.Helper()
	var name string
	e.eventually("there is a snapshot of claim "+claim, func() error {
		for _, u := range list[map[string]any](e, snapshots) {
			of, _, _ := unstructured.NestedString(*u, "spec", "source", "persistentVolumeClaimName")
			ready, _, _ := unstructured.NestedBool(*u, "status", "readyToUse")
			if of == claim && ready {
				name, _, _ = unstructured.NestedString(*u, "metadata", "name")
				return nil
			}
		}
		return errors.New("there is none that is ready")
	})
	return name
}

// TestGroupSnapshot: snapshots of two volumes that are taken together while a
// pod writes to one and then to the other never show the second write without
// the first; they are deleted together, and their bytes are free.
func TestGroupSnapshot(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	node := e.nodeNames()[0]
	class := e.class(params{"pool": "image", "csi.storage.k8s.io/fstype": "ext4"}, madeOn(node), waiting)
	e.claim("a", class, "48Mi", labelled("both"))
	e.claim("b", class, "48Mi", labelled("both"))
	// It writes n to a, then to b; each write is on disk before the next begins.
	e.pod("writer", "a", withBoth("b"), running(`n=0; while :; do n=$((n+1));
echo $n > /data/n.new && sync && mv /data/n.new /data/n && sync;
echo $n > /more/n.new && sync && mv /more/n.new /more/n && sync; done`))
	await(e, pods, "writer", "ready", ready)
	e.eventually("the writer writes", func() error { _, err := e.sh("writer", "test -s /more/n"); return err })
	va, vb := e.volumeOf("a"), e.volumeOf("b")

	e.group("both", "both")
	await(e, groupSnapshots, "both", "ready", func(u *map[string]any) error {
		if ready, _, _ := unstructured.NestedBool(*u, "status", "readyToUse"); !ready {
			return fmt.Errorf("status %v", (*u)["status"])
		}
		return nil
	})
	e.claim("a2", class, "48Mi", restoring(e.memberOf("a")))
	e.claim("b2", class, "48Mi", restoring(e.memberOf("b")))
	e.pod("reader", "a2", withBoth("b2"))
	await(e, pods, "reader", "ready", ready)
	count := func(file string) int {
		n, err := strconv.Atoi(e.mustSh("reader", "cat "+file+" || echo 0"))
		e.must(err, "read "+file)
		return n
	}
	if a, b := count("/data/n"), count("/more/n"); a < b || a > b+1 {
		t.Errorf("the snapshot of a has write %d and that of b write %d", a, b)
	}
	if now, err := strconv.Atoi(e.mustSh("writer", "cat /data/n")); err != nil || now <= count("/data/n") {
		t.Errorf("the writer is at %d (%v)", now, err)
	}

	members := e.ofGroup(va, vb)
	if len(members) != 2 || members[0].Spec.Group == nil {
		t.Fatalf("%d snapshots in the ledger", len(members))
	}
	e.remove(groupSnapshots, "both")
	for _, s := range members {
		e.awaitGone(plinthSnaps, s.Name)
		if left := e.mustOnNode(node, "sh", "-c", "find "+va.pool.Path+"/snapshots "+va.pool.Path+"/.plinth -name '*"+s.Name+"*'"); left != "" {
			t.Errorf("left of the snapshot: %s", left)
		}
	}
	if left := e.mustOnNode(node, "sh", "-c", "find "+va.pool.Path+"/.plinth/groups -name '*"+members[0].Spec.Group.ID+"*'"); left != "" {
		t.Errorf("left of the group: %s", left)
	}
}

// TestGroupSnapshotRefused: volumes that nothing can hold still together are
// refused with the way out, and nothing is left behind.
func TestGroupSnapshotRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, pool string
		nodes      int
		says       []string
	}{
		{"two nodes", "image", 2, []string{"one node"}},
		{"btrfs", "btrfs", 1, []string{"backend: image"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			nodes := e.nodeNames()
			e.claim("a", e.class(params{"pool": c.pool}, madeOn(nodes[0])), "32Mi", labelled("both"))
			e.claim("b", e.class(params{"pool": c.pool}, madeOn(nodes[c.nodes-1])), "32Mi", labelled("both"))
			va, vb := e.volumeOf("a"), e.volumeOf("b")
			e.group("both", "both")
			uid, _, _ := unstructured.NestedString(*get[map[string]any](e, groupSnapshots, "both"), "metadata", "uid")
			e.told("groupsnapcontent-"+uid, "GroupSnapshotCreationFailed", c.says...)
			e.remove(groupSnapshots, "both")
			e.awaitGone(groupSnapshots, "both")
			e.eventually("nothing is left of the group", func() error {
				if left := e.ofGroup(va, vb); len(left) > 0 {
					return fmt.Errorf("%d snapshots, such as %s: %s", len(left), left[0].Name, strings.TrimSpace(left[0].Status.Message))
				}
				return nil
			})
		})
	}
}
