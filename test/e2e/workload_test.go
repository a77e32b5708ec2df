//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The tests called TestWorkload… apply the manifests of deploy/samples as they
// stand and check what docs/workloads.md says of them: make test-workloads.

// The kinds of object that workloads are.
var (
	daemonSets = kind{appsv1.SchemeGroupVersion.WithResource("daemonsets"), true}
	jobs       = kind{batchv1.SchemeGroupVersion.WithResource("jobs"), true}
)

// sample applies a manifest of deploy/samples. What of it has no namespace is
// removed with the test: classes last of all, as they are of every test.
func (e *env) sample(name string) []*unstructured.Unstructured {
	e.Helper()
	text, err := os.ReadFile("../../deploy/samples/" + name)
	e.must(err, "read the sample")
	applied := e.apply(string(text))
	for _, u := range applied {
		switch u.GetKind() {
		case "StorageClass":
			e.patch(classes, u.GetName(), map[string]any{"metadata": map[string]any{"labels": map[string]any{testLabel: e.ns}}})
		case "PersistentVolume":
			e.Cleanup(func() { e.remove(volumes, u.GetName()) })
		case "VolumeSnapshotClass":
			e.Cleanup(func() { e.remove(snapshotClasses, u.GetName()) })
		}
	}
	return applied
}

// patch merges a change into an object.
func (e *env) patch(r kind, name string, change map[string]any) {
	e.Helper()
	data, err := json.Marshal(change)
	e.must(err, "write a patch")
	_, err = e.of(r).Patch(e.ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
	e.must(err, "patch "+r.Resource+" "+name)
}

// scale sets the number of a StatefulSet's replicas.
func (e *env) scale(name string, replicas int) {
	e.Helper()
	e.patch(statefulSets, name, map[string]any{"spec": map[string]any{"replicas": replicas}})
}

// awaitSet waits until all replicas of a StatefulSet serve.
func (e *env) awaitSet(name string) *appsv1.StatefulSet {
	e.Helper()
	return await(e, statefulSets, name, "ready with all replicas", func(s *appsv1.StatefulSet) error {
		if s.Status.ObservedGeneration < s.Generation || s.Status.ReadyReplicas != *s.Spec.Replicas || s.Status.Replicas != *s.Spec.Replicas {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
}

// member is a pod of a StatefulSet with its claim.
type member struct {
	pod   *corev1.Pod
	claim *corev1.PersistentVolumeClaim
}

// members reads the pods of a StatefulSet, by ordinal, and their claims.
func (e *env) members(set string, replicas int) []member {
	e.Helper()
	var out []member
	for i := range replicas {
		name := fmt.Sprintf("%s-%d", set, i)
		m := member{get[corev1.Pod](e, pods, name), get[corev1.PersistentVolumeClaim](e, claims, "data-"+name)}
		if m.pod == nil || m.claim == nil {
			e.Fatalf("pod %s: %v, claim: %v", name, m.pod != nil, m.claim != nil)
		}
		out = append(out, m)
	}
	return out
}

// same fails the test unless a pod came back to the claim, the volume and the
// node that it had.
func (e *env) same(before, after member) {
	e.Helper()
	if after.claim.UID != before.claim.UID || after.claim.Spec.VolumeName != before.claim.Spec.VolumeName {
		e.Errorf("claim %s is another: %s on %s, was %s on %s", after.claim.Name,
			after.claim.UID, after.claim.Spec.VolumeName, before.claim.UID, before.claim.Spec.VolumeName)
	}
	if after.pod.Spec.NodeName != before.pod.Spec.NodeName {
		e.Errorf("pod %s was on node %s and came back on %s", after.pod.Name, before.pod.Spec.NodeName, after.pod.Spec.NodeName)
	}
}

// inOrder fails the test unless each of the pods was ready when the next one
// was made.
func (e *env) inOrder(names ...string) {
	e.Helper()
	var before *corev1.Pod
	for _, name := range names {
		p := get[corev1.Pod](e, pods, name)
		if p == nil {
			e.Fatalf("there is no pod %s", name)
		}
		if before != nil && p.CreationTimestamp.Time.Before(readySince(before)) {
			e.Errorf("pod %s was made at %v, and %s was ready only at %v", name, p.CreationTimestamp, before.Name, readySince(before))
		}
		before = p
	}
}

func readySince(p *corev1.Pod) time.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Now()
}

// TestWorkloadStatefulSet: pods start in order, keep name, claim, node and
// data when they are replaced, and their names in the DNS lead to them.
func TestWorkloadStatefulSet(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("statefulset.yaml")
	e.awaitSet("web")
	e.inOrder("web-0", "web-1", "web-2")
	before := e.members("web", 3)
	for _, m := range before {
		e.mustSh(m.pod.Name, "echo "+m.pod.Name+" >/data/name && sync")
	}
	e.awaitName("web-0", "web-1", before[1].pod.Status.PodIP)
	for i, m := range before {
		e.remove(pods, m.pod.Name)
		e.awaitNewPod(m.pod.Name, m.pod.UID)
		after := e.members("web", 3)
		e.same(m, after[i])
		if got := e.mustSh(m.pod.Name, "cat /data/name"); got != m.pod.Name {
			t.Errorf("pod %s finds %q on its volume", m.pod.Name, got)
		}
	}
	e.awaitName("web-0", "web-1", get[corev1.Pod](e, pods, "web-1").Status.PodIP)
}

// awaitName waits until a pod of the sample's service is found by its full
// name from another, and answers with what is on its own volume.
func (e *env) awaitName(from, pod, address string) {
	e.Helper()
	name := fmt.Sprintf("%s.web.%s.svc.cluster.local", pod, e.ns)
	e.eventually(name+" leads to "+address, func() error {
		script := fmt.Sprintf("nslookup %s | grep -wF %s && wget -q -O - http://%s:8080/name", name, address, name)
		got, err := e.sh(from, script)
		if err == nil && !strings.HasSuffix(got, "\n"+pod) {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// TestWorkloadRollingUpdate: from the highest ordinal down to the partition,
// one at a time, and no further; data is kept.
func TestWorkloadRollingUpdate(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("statefulset-update.yaml")
	e.awaitSet("update")
	before := e.members("update", 3)
	version := func(v string) map[string]any {
		container := map[string]any{"name": "web", "env": []any{map[string]any{"name": "VERSION", "value": v}}}
		return map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{container}}}}}
	}
	data, err := json.Marshal(version("2"))
	e.must(err, "write a patch")
	_, err = e.of(statefulSets).Patch(e.ctx, "update", types.StrategicMergePatchType, data, metav1.PatchOptions{FieldManager: fieldManager})
	e.must(err, "change the template")

	updated := func(n int32) func(*appsv1.StatefulSet) error {
		return func(s *appsv1.StatefulSet) error {
			if s.Status.ObservedGeneration < s.Generation || s.Status.UpdatedReplicas != n || s.Status.ReadyReplicas != 3 {
				return fmt.Errorf("status %+v", s.Status)
			}
			return nil
		}
	}
	await(e, statefulSets, "update", "updated down to its partition", updated(2))
	e.inOrder("update-2", "update-1")
	after := e.members("update", 3)
	if after[0].pod.UID != before[0].pod.UID {
		t.Error("update-0 is below the partition and was replaced")
	}
	e.patch(statefulSets, "update", map[string]any{"spec": map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"partition": 0}}}})
	await(e, statefulSets, "update", "updated", updated(3))
	last := e.members("update", 3)
	for i := range last {
		e.same(before[i], last[i])
		if i > 0 && last[i].pod.UID != after[i].pod.UID {
			t.Errorf("update-%d was replaced a second time", i)
		}
		want := fmt.Sprintf("update-%d version 1\nupdate-%d version 2", i, i)
		if got := e.mustSh(last[i].pod.Name, "cat /data/starts"); got != want {
			t.Errorf("update-%d started as %q, want %q", i, got, want)
		}
	}
}

// TestWorkloadScale: claims are kept and found again by the same ordinals when
// the set is scaled down and up, and when it is deleted and made again.
func TestWorkloadScale(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("statefulset-scale.yaml")
	e.awaitSet("keeps")
	before := e.members("keeps", 3)
	for _, m := range before {
		e.mustSh(m.pod.Name, "echo "+m.pod.Name+" >/data/name && sync")
	}
	back := func(how string) {
		t.Helper()
		e.awaitSet("keeps")
		for i, m := range e.members("keeps", 3) {
			e.same(before[i], m)
			if got := e.mustSh(m.pod.Name, "cat /data/name"); got != m.pod.Name {
				t.Errorf("%s, pod %s finds %q", how, m.pod.Name, got)
			}
		}
	}
	e.scale("keeps", 1)
	e.awaitGone(pods, "keeps-2")
	e.awaitGone(pods, "keeps-1")
	e.scale("keeps", 3)
	back("scaled down and up")
	e.remove(statefulSets, "keeps")
	for _, m := range before {
		e.awaitGone(pods, m.pod.Name)
	}
	e.sample("statefulset-scale.yaml")
	back("made again")
}

// TestWorkloadRetention: claims go with replicas and with the set, and so do
// the bytes on the node where the class deletes.
func TestWorkloadRetention(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("statefulset-retention.yaml")
	e.awaitSet("forgets")
	first, second := e.volumeOf("data-forgets-0"), e.volumeOf("data-forgets-1")
	for _, pod := range []string{"forgets-0", "forgets-1"} {
		e.mustSh(pod, "dd if=/dev/zero of=/data/file bs=1M count=8 && sync")
	}
	e.scale("forgets", 1)
	e.awaitGone(claims, "data-forgets-1")
	e.awaitFreed(second)
	if c := get[corev1.PersistentVolumeClaim](e, claims, "data-forgets-0"); c == nil || c.DeletionTimestamp != nil {
		t.Errorf("the claim of the replica that stays is %v", c)
	}
	e.remove(statefulSets, "forgets")
	e.awaitGone(claims, "data-forgets-0")
	e.awaitFreed(first)
}

// TestWorkloadRetentionRetain: the claim goes with the set, and the data waits
// on its node, in phase Retained once the PersistentVolume is deleted.
func TestWorkloadRetentionRetain(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("statefulset-retention-retain.yaml")
	e.awaitSet("leaves")
	v := e.volumeOf("data-leaves-0")
	e.mustSh("leaves-0", "echo kept >/data/file && sync")
	e.remove(statefulSets, "leaves")
	e.awaitGone(claims, "data-leaves-0")
	await(e, volumes, v.Name, "released", released)
	e.remove(volumes, v.Name)
	await(e, plinthVols, v.Name, "retained", retained)
	if e.binary != "" && len(e.onDisk(v)) == 0 {
		t.Errorf("nothing of volume %s is on %s", v.Name, v.Spec.NodeName)
	}
	e.remove(plinthVols, v.Name)
	e.awaitFreed(v)
}

func released(pv *corev1.PersistentVolume) error {
	if pv.Status.Phase != corev1.VolumeReleased {
		return fmt.Errorf("phase %s", pv.Status.Phase)
	}
	return nil
}

// TestWorkloadHandOver: what was written under one claim is read under another
// that adopts the volume.
func TestWorkloadHandOver(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("retain-hand-over.yaml")
	await(e, jobs, "giver", "complete", complete)
	v := e.volumeOf("giver")
	e.removeJob("giver")
	e.remove(claims, "giver")
	e.awaitGone(claims, "giver")
	await(e, volumes, v.Name, "released", released)
	e.remove(volumes, v.Name)
	await(e, plinthVols, v.Name, "retained", retained)

	e.patch(claims, "heir", map[string]any{"metadata": map[string]any{"annotations": map[string]any{"plinth.dev/adopt": v.Name}}})
	e.patch(jobs, "heir", map[string]any{"spec": map[string]any{"suspend": false}})
	await(e, jobs, "heir", "complete", complete)
	heir := await(e, claims, "heir", "bound", bound)
	await(e, plinthVols, v.Name, "the heir's", func(p *v1alpha1.PlinthVolume) error {
		if p.Spec.ClaimName != "heir" || p.Status.Phase != v1alpha1.VolumeReady {
			return fmt.Errorf("claim %s, phase %s", p.Spec.ClaimName, p.Status.Phase)
		}
		return nil
	})

	e.removeJob("heir")
	e.remove(claims, "heir")
	e.awaitGone(claims, "heir")
	e.remove(volumes, heir.Spec.VolumeName)
	await(e, plinthVols, v.Name, "retained again", retained)
	e.remove(plinthVols, v.Name)
	e.awaitFreed(v)
}
