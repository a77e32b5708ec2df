//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestDrain: a node that is cordoned gets no new volumes, and a claim that can
// be nowhere else waits and is told why. When the node is drained, also of
// Plinth's own controller, its pods wait for it, for their data is there, and
// are back with it once the node is uncordoned.
func TestDrain(t *testing.T) { // alone: it takes a node away
	e := newEnv(t)
	all := e.nodeNames()
	node := all[len(all)-1]
	var sets []string
	for _, k := range variants {
		name := strings.ToLower(k.volumeType + "-" + k.backend)
		class := e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType}, waiting, madeOn(node))
		e.apply(strings.NewReplacer("name: web", "name: "+name, "app: web", "app: "+name, "replicas: 3", "replicas: 1").Replace(fmt.Sprintf(statefulSet, class)))
		sets = append(sets, name)
	}
	before := map[string]*corev1.Pod{}
	for _, name := range sets {
		before[name] = await(e, pods, name+"-0", "ready", ready)
		e.mustSh(name+"-0", "echo kept > /data/file && sync")
	}
	t.Cleanup(func() { e.kubectl("uncordon", node) })
	e.kubectl("cordon", node)
	pool := params{"pool": e.pool("btrfs")}
	e.claim("anywhere", e.class(pool), "16Mi")
	e.claim("only-there", e.class(pool, madeOn(node)), "16Mi")
	if got := e.volumeOf("anywhere").Spec.NodeName; got == node {
		t.Errorf("a new volume is on %s, which is cordoned", got)
	}
	t.Log(e.awaitEvent(claims, "only-there", "ProvisioningFailed", node, "cordoned"))
	for _, name := range sets {
		e.stillThere(name + "-0")
	}

	e.drain(node)
	for _, name := range sets {
		await(e, pods, name+"-0", "waiting for its node", func(p *corev1.Pod) error {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && p.UID != before[name].UID {
					return nil
				}
			}
			return fmt.Errorf("it is on %q, conditions %v", p.Spec.NodeName, p.Status.Conditions)
		})
		bound := await(e, claims, "data-"+name+"-0", "bound", bound)
		if v := get[v1alpha1.PlinthVolume](e, plinthVols, bound.Spec.VolumeName); v == nil || v.DeletionTimestamp != nil || v.Spec.NodeName != node {
			t.Errorf("the volume of the drained pod %s: %+v", name, v)
		}
	}

	e.kubectl("uncordon", node)
	for _, name := range sets {
		if got := e.awaitNewPod(name+"-0", before[name].UID).Spec.NodeName; got != node {
			t.Errorf("pod %s-0 is back on %s", name, got)
		}
		e.stillThere(name + "-0")
	}
	if got := e.volumeOf("only-there").Spec.NodeName; got != node {
		t.Errorf("the claim that waited for %s is on %s", node, got)
	}
}

// vacate moves all that does not belong to a node away from it, such as
// controllers that a test needs while it has the node switched off.
func (e *env) vacate(node string) {
	e.Helper()
	e.drain(node)
	e.kubectl("uncordon", node)
}

func (e *env) drain(node string) {
	e.Helper()
	e.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--grace-period=1", "--timeout=4m")
}

// stillThere checks that a pod reads what it wrote.
func (e *env) stillThere(pod string) {
	e.Helper()
	if got := e.mustSh(pod, "cat /data/file"); got != "kept" {
		e.Errorf("pod %s reads %q", pod, got)
	}
}

// kubectl runs the program that administrators use.
func (e *env) kubectl(args ...string) {
	e.Helper()
	if out, err := exec.Command("kubectl", args...).CombinedOutput(); err != nil {
		e.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// power stops, kills or starts a node, or removes it for good.
func (e *env) power(verb, node string) {
	e.Helper()
	e.machines(verb, node)
}

// join adds a node to the cluster and waits until its pools serve. The test
// has to remove it, and is not to run beside others, whose nodes are those
// that they found. It returns its name.
func (e *env) join() string {
	e.Helper()
	node := e.machines("add")
	e.Cleanup(func() {
		if get[corev1.Node](e, nodes, node) != nil {
			e.removeAll() // while it is there to free what it has
			e.power("remove", node)
		}
	})
	e.awaitPools(node)
	return node
}

// machines has test/cluster do something to its nodes, and returns what it says.
func (e *env) machines(args ...string) string {
	e.Helper()
	if e.binary == "" {
		e.Skip("PLINTH_CLUSTER is not set: no way to switch a node on or off")
	}
	var errs bytes.Buffer
	cmd := exec.Command(e.binary, append([]string{"node"}, args...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		e.Fatalf("node %s: %v\n%s%s", strings.Join(args, " "), err, out, &errs)
	}
	return strings.TrimSpace(string(out))
}

// removeTombstones takes away the objects of what was on a node that is gone
// for good, as docs/operations.md says.
func (e *env) removeTombstones(node string) {
	e.Helper()
	for _, v := range list[v1alpha1.PlinthVolume](e, plinthVols) {
		if v.Spec.NodeName == node && v.DeletionTimestamp != nil {
			e.patch(plinthVols, v.Name, map[string]any{"metadata": map[string]any{"finalizers": nil}})
		}
	}
}

// TestNodeDown: what a node that is off has to make or to free waits for it,
// and nothing else does; when it is back, all is made and freed.
func TestNodeDown(t *testing.T) { // alone: it takes a node away
	e := newEnv(t)
	all := e.nodeNames()
	node := all[len(all)-1]
	e.vacate(node)
	var freed []placed
	for _, k := range variants {
		name := strings.ToLower(k.volumeType + "-" + k.backend)
		e.claim(name, e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType}, madeOn(node)), "32Mi")
		freed = append(freed, e.volumeOf(name))
	}
	t.Cleanup(func() {
		e.power("start", node)
		e.awaitPools(node)
	})
	e.power("stop", node)
	for _, v := range freed {
		e.remove(claims, v.Spec.ClaimName)
	}
	e.claim("there", e.class(params{"pool": e.pool("btrfs")}, madeOn(node)), "16Mi")
	for i, n := range all[:len(all)-1] {
		elsewhere := fmt.Sprint("elsewhere-", i)
		e.claim(elsewhere, e.class(params{"pool": e.pool("btrfs")}, madeOn(n)), "16Mi")
		v := e.volumeOf(elsewhere)
		e.remove(claims, elsewhere)
		e.awaitFreed(v)
	}
	for _, v := range freed {
		e.awaitGone(claims, v.Spec.ClaimName)
		await(e, plinthVols, v.Name, "marked", marked[v1alpha1.PlinthVolume])
		if get[corev1.PersistentVolume](e, volumes, v.Name) == nil {
			t.Errorf("PersistentVolume %s is gone, and its node cannot have freed it", v.Name)
		}
	}
	if c := get[corev1.PersistentVolumeClaim](e, claims, "there"); c.Status.Phase != corev1.ClaimPending {
		t.Errorf("a claim for the node that is off is %s", c.Status.Phase)
	}
	e.power("start", node)
	e.awaitFreed(freed...)
	if got := e.volumeOf("there").Spec.NodeName; got != node {
		t.Errorf("the claim that waited for %s is on %s", node, got)
	}
}

// placeOn has the scheduler choose a node that is off, and does not know it yet,
// for a pod "placed" and its claim, and returns the name of the volume that is
// not made.
func (e *env) placeOn(node, class string) string {
	e.Helper()
	for _, n := range e.nodeNames() {
		if n != node {
			e.kubectl("cordon", n)
			defer e.kubectl("uncordon", n)
		}
	}
	e.claim("placed", class, "32Mi")
	e.pod("placed", "placed")
	name := "pvc-" + string(get[corev1.PersistentVolumeClaim](e, claims, "placed").UID)
	await(e, plinthVols, name, "placed on node "+node, func(v *v1alpha1.PlinthVolume) error {
		if v.Spec.NodeName != node {
			return fmt.Errorf("it is on %s", v.Spec.NodeName)
		}
		return nil
	})
	return name
}

// TestNodeGone: deleting the Node of a machine that is off says that it is no
// more. Its PlinthNode and its capacity go, claims that are deleted let go at
// once of what they had there, and so do snapshots; what it was to make is made
// elsewhere, and what it made in a shared pool is another node's. Should the
// machine come back all the same, it frees what was deleted, and what was not is
// there.
func TestNodeGone(t *testing.T) { // alone: it takes a node away
	e := newEnv(t)
	all := e.nodeNames()
	node := all[len(all)-1]
	e.vacate(node)
	var deleted []placed
	for _, k := range variants {
		name := strings.ToLower(k.volumeType + "-" + k.backend)
		e.claim(name, e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType}, madeOn(node)), "32Mi")
		deleted = append(deleted, e.volumeOf(name))
	}
	e.claim("shared", e.class(params{"pool": e.sharedPool()}, madeOn(node)), "32Mi", access(corev1.ReadWriteMany))
	shared := e.volumeOf("shared").Name
	snapshot := e.snapshot("snapshot", e.snapshotClass(), "csi-btrfs")
	copied := e.snapshot("copied", e.snapshotClass(), "shared")
	// Only what is in a shared pool can be given away, and nothing else of it changes.
	for name, change := range map[string]string{snapshot: `{"nodeName":"other"}`, copied: `{"nodeName":"other","volume":"other"}`} {
		_, err := e.of(plinthSnaps).Patch(e.ctx, name, mergePatch, []byte(`{"spec":`+change+`}`), metav1.PatchOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("snapshot %s was given %s: %v", name, change, err)
		}
	}
	class := e.class(params{"pool": e.pool("btrfs")}, waiting)
	e.claim("kept", class, "32Mi")
	e.pod("kept", "kept", onlyOn(node))
	await(e, pods, "kept", "ready", ready)
	e.mustSh("kept", "echo kept > /data/file && sync")
	v := e.volumeOf("kept")

	t.Cleanup(func() {
		e.power("start", node)
		e.awaitPools(node)
	})
	e.power("kill", node)
	unmade := e.placeOn(node, class)
	before := get[corev1.Node](e, nodes, node)
	e.remove(claims, "local-btrfs") // this one waits, until
	e.remove(nodes, node)
	e.awaitGone(plinthNodes, node)
	e.eventually("no capacity is published for the node", func() error {
		found, err := e.capacities(class)
		if _, there := found[node]; err == nil && there {
			err = fmt.Errorf("published are %v", found)
		}
		return err
	})
	e.remove(snapshots, "snapshot")
	for _, v := range deleted {
		e.remove(claims, v.Spec.ClaimName)
		e.awaitGone(volumes, v.Name)
		if now := get[v1alpha1.PlinthVolume](e, plinthVols, v.Name); now == nil || now.DeletionTimestamp == nil {
			t.Errorf("volume %s has no tombstone: %+v", v.Name, now)
		}
	}
	e.awaitGone(snapshots, "snapshot")
	placed := await(e, pods, "placed", "on another node", ready).Spec.NodeName
	pv := get[corev1.PersistentVolume](e, volumes, get[corev1.PersistentVolumeClaim](e, claims, "placed").Spec.VolumeName)
	if pv == nil || pv.Spec.CSI == nil || pv.Spec.CSI.VolumeHandle == unmade || placed == node {
		t.Errorf("the pod whose volume was not made yet is on %s with %+v", placed, pv)
	}
	e.awaitEvent(claims, "placed", "NodeGone", node)
	e.remove(pods, "kept")
	await(e, plinthVols, shared, "given to another node", func(v *v1alpha1.PlinthVolume) error {
		if v.Spec.NodeName == node {
			return errors.New("it is still with the node that is gone")
		}
		return nil
	})
	e.remove(snapshots, "copied")
	e.awaitGone(plinthSnaps, copied) // given to another node, which has freed it
	given := e.volumeOf("shared")
	e.remove(claims, "shared")
	e.awaitFreed(given)

	e.power("start", node)
	await(e, nodes, node, "back", func(n *corev1.Node) error {
		if n.UID == before.UID {
			return errors.New("it is the old Node")
		}
		return nil
	})
	e.awaitPools(node)
	e.awaitFreed(deleted...)
	e.awaitGone(plinthVols, unmade)
	e.awaitGone(plinthSnaps, snapshot)
	e.awaitGone(pods, "kept")
	e.pod("again", "kept")
	if got := await(e, pods, "again", "ready", ready).Spec.NodeName; got != node {
		t.Errorf("the pod of a volume on %s is on %s", node, got)
	}
	e.stillThere("again")
	if now := get[v1alpha1.PlinthVolume](e, plinthVols, v.Name); now == nil || now.UID != v.UID || now.Status.Phase != v1alpha1.VolumeReady {
		t.Errorf("the volume that was kept is %+v", now)
	}
	await(e, plinthNodes, node, "the new Node's", func(n *v1alpha1.PlinthNode) error {
		if len(n.OwnerReferences) != 1 || n.OwnerReferences[0].UID == before.UID {
			return fmt.Errorf("it belongs to %+v", n.OwnerReferences)
		}
		return nil
	})
}
