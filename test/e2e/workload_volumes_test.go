//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestWorkloadAccessModes: of two pods one has a ReadWriteOncePod claim; pods
// on three nodes write to a ReadWriteMany claim; pods on two nodes read a
// ReadOnlyMany clone of it, and neither can write to that; a node-local pool
// refuses ReadWriteMany.
func TestWorkloadAccessModes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	if all := e.nodeNames(); len(all) < 3 {
		t.Skipf("there are %d nodes, and it takes 3", len(all))
	}
	e.sample("access-modes.yaml")
	e.awaitEvent(claims, "refused", "ProvisioningFailed", "ReadWriteMany")
	e.oneAtATime("one-pod-a", "one-pod-b")
	e.awaitSet("many")
	e.onNodesOfTheirOwn("many", 3)
	const read = "cat many-0 many-1 many-2"
	const written = "many-0\nmany-1\nmany-2"
	for i := range 3 {
		if got := e.mustSh(fmt.Sprintf("many-%d", i), "cd /many && "+read); got != written {
			t.Errorf("many-%d reads %q", i, got)
		}
	}

	e.sample("access-modes-readers.yaml")
	e.awaitSet("readers")
	e.onNodesOfTheirOwn("readers", 2)
	reads := func(pod string) {
		t.Helper()
		if got := e.mustSh(pod, "cd /data && "+read); got != written {
			t.Errorf("%s reads %q", pod, got)
		}
	}
	for i := range 2 {
		pod := fmt.Sprintf("readers-%d", i)
		reads(pod)
		for _, write := range []string{"echo mine >/data/many-0", "echo more >>/data/many-1", "touch /data/new", "rm -f /data/many-2", "mv /data/many-0 /data/moved", "chmod 777 /data"} {
			if out, err := e.sh(pod, write); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
				t.Errorf("%s: %s: it says %q, %v", pod, write, out, err)
			}
		}
		reads(pod)
	}
}

// onNodesOfTheirOwn checks that no two pods of a StatefulSet share a node.
func (e *env) onNodesOfTheirOwn(set string, replicas int) {
	e.Helper()
	on := map[string]string{}
	for i := range replicas {
		pod := fmt.Sprintf("%s-%d", set, i)
		node := get[corev1.Pod](e, pods, pod).Spec.NodeName
		if other, taken := on[node]; taken {
			e.Errorf("pods %s and %s are both on %s", other, pod, node)
		}
		on[node] = pod
	}
}

// oneAtATime expects one of two pods to have the claim, and the other when the
// first is gone.
func (e *env) oneAtATime(a, b string) {
	e.Helper()
	var first, second string
	e.eventually("one of two pods has the ReadWriteOncePod claim", func() error {
		for _, order := range [][2]string{{a, b}, {b, a}} {
			if p := get[corev1.Pod](e, pods, order[0]); p != nil && ready(p) == nil {
				first, second = order[0], order[1]
				return nil
			}
		}
		return fmt.Errorf("neither %s nor %s is ready", a, b)
	})
	e.awaitEvent(pods, second, "FailedScheduling", "ReadWriteOncePod")
	if got := get[corev1.Pod](e, pods, second).Status.Phase; got != corev1.PodPending {
		e.Errorf("pod %s is %s while %s has the claim", second, got, first)
	}
	e.remove(pods, first)
	await(e, pods, second, "ready", ready)
}

// TestWorkloadStaticVolumes: PersistentVolumes written by hand are bound by
// class, size and mode; a claim that none matches stays Pending.
func TestWorkloadStaticVolumes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	node := e.nodeNames()[0]
	e.mustOnNode(node, "mkdir", "-p", "/var/lib/plinth/sample/local")
	e.Cleanup(func() {
		for _, n := range e.nodeNames() {
			e.mustOnNode(n, "rm", "-rf", "/var/lib/plinth/sample")
		}
	})
	e.label(node, "sample.plinth.dev/static", "")
	e.sample("static-volumes.yaml")
	for _, kind := range []string{"local", "hostpath"} {
		name := "static-" + kind
		if c := await(e, claims, name, "bound", bound); c.Spec.VolumeName != "sample-"+name {
			t.Errorf("claim %s is bound to %s", name, c.Spec.VolumeName)
		}
		p := await(e, pods, name, "ready", ready)
		if kind == "local" && p.Spec.NodeName != node {
			t.Errorf("the local volume is on %s and its pod on %s", node, p.Spec.NodeName)
		}
		e.eventually("what the pod wrote is on its node", func() error {
			got, err := e.onNode(p.Spec.NodeName, "cat", "/var/lib/plinth/sample/"+kind+"/file")
			if err == nil && got != kind {
				err = fmt.Errorf("%q", got)
			}
			return err
		})
	}
	for _, name := range []string{"static-too-large", "static-other-class"} {
		e.awaitEvent(claims, name, "ProvisioningFailed", "not found")
		if c := get[corev1.PersistentVolumeClaim](e, claims, name); c.Status.Phase != corev1.ClaimPending {
			t.Errorf("claim %s is %s", name, c.Status.Phase)
		}
	}
}
