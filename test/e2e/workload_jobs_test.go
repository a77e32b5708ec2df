//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// complete is what await wants of a Job that has done its work.
func complete(j *batchv1.Job) error {
	for _, c := range j.Status.Conditions {
		if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("status %+v", j.Status)
}

// removeJob deletes a Job and waits until its pods are gone.
func (e *env) removeJob(name string) {
	e.Helper()
	all := e.podsOfJob(name)
	err := e.kube.BatchV1().Jobs(e.ns).Delete(e.ctx, name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)})
	e.must(err, "delete job "+name)
	for _, p := range all {
		e.awaitGone(pods, p.Name)
	}
}

func (e *env) podsOfJob(name string) []corev1.Pod {
	e.Helper()
	l, err := e.kube.CoreV1().Pods(e.ns).List(e.ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
	e.must(err, "list the pods of job "+name)
	return l.Items
}

// look makes a pod that reads a claim when the Job is done with it.
func (e *env) look(claim string) string {
	e.Helper()
	name := "look-" + claim
	e.pod(name, claim)
	await(e, pods, name, "ready", ready)
	return name
}

// TestWorkloadJob: a pod that fails is replaced by one that sees its data.
func TestWorkloadJob(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("job.yaml")
	j := await(e, jobs, "once", "complete", complete)
	if j.Status.Succeeded != 1 || j.Status.Failed != 1 {
		t.Errorf("%d pods succeeded and %d failed, want one of each", j.Status.Succeeded, j.Status.Failed)
	}
	var want []string
	for _, p := range e.podsOfJob("once") {
		want = append(want, p.Name)
	}
	got := strings.Fields(e.mustSh(e.look("once"), "cat /data/tries"))
	slices.Sort(want)
	slices.Sort(got)
	if len(got) != 2 || !slices.Equal(got, want) {
		t.Errorf("the tries on the volume are %v, the pods were %v", got, want)
	}
}

// TestWorkloadIndexedJob: each index has a volume of its own, all complete, and
// the volumes go with the Job.
func TestWorkloadIndexedJob(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("job-indexed.yaml")
	j := await(e, jobs, "parts", "complete", complete)
	if j.Status.Succeeded != 4 || j.Status.CompletedIndexes != "0-3" || j.Status.Failed != 0 {
		t.Errorf("status %+v", j.Status)
	}
	made := e.volumesOfTest()
	claimed := map[string]bool{}
	for _, v := range made {
		claimed[v.Spec.ClaimName] = true
	}
	for _, p := range e.podsOfJob("parts") {
		if !claimed[p.Name+"-scratch"] {
			t.Errorf("pod %s has no volume of its own; the volumes are of %v", p.Name, claimed)
		}
	}
	if len(made) != 4 {
		t.Errorf("%d volumes for 4 indexes", len(made))
	}
	e.removeJob("parts")
	for _, v := range made {
		e.awaitFreed(v)
	}
}

// TestWorkloadQueue: workers share a volume, on one node or, of a shared pool,
// across nodes, and every item is done once.
func TestWorkloadQueue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sample string
		nodes        int
	}{
		{"queue", "job-queue.yaml", 1},
		{"queue-shared", "job-queue-shared.yaml", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			if all := e.nodeNames(); len(all) < c.nodes {
				t.Skipf("there are %d nodes, and it takes %d", len(all), c.nodes)
			}
			e.sample(c.sample)
			j := await(e, jobs, c.name, "complete", complete)
			workers, on := map[string]bool{}, map[string]bool{}
			for _, p := range e.podsOfJob(c.name) {
				workers[p.Name], on[p.Spec.NodeName] = true, true
			}
			if len(workers) != 3 || int(j.Status.Succeeded) != 3 || len(on) != c.nodes {
				t.Errorf("%d workers on %d nodes, %d succeeded; want 3 on %d", len(workers), len(on), j.Status.Succeeded, c.nodes)
			}
			got := strings.Fields(e.mustSh(e.look(c.name), "for i in $(seq 12); do cat /data/$i/done; done"))
			if len(got) != 12 {
				t.Errorf("12 items were done %d times, by %v", len(got), got)
			}
			for _, by := range got {
				if !workers[by] {
					t.Errorf("an item was done by %s, which is no worker", by)
				}
			}
		})
	}
}
