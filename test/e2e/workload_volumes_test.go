//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestWorkloadAccessModes: of two pods one has a ReadWriteOncePod claim; pods
// on three nodes write to a ReadWriteMany claim, and none to a ReadOnlyMany
// one; a node-local pool refuses ReadWriteMany.
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
	on := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprintf("many-%d", i)
		on[get[corev1.Pod](e, pods, name).Spec.NodeName] = true
		if got := e.mustSh(name, "cat /many/many-0 /many/many-1 /many/many-2"); got != "many-0\nmany-1\nmany-2" {
			t.Errorf("%s reads %q", name, got)
		}
		if out, err := e.sh(name, "touch /readers/file"); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("%s writes to a ReadOnlyMany claim: %q, %v", name, out, err)
		}
	}
	if len(on) != 3 {
		t.Errorf("the pods are on %v", on)
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
