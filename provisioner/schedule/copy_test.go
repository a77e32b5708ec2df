package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// template is a CronJob that copies, as JSON.
const template = `{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"namespace": "shop", "name": "copy", "uid": "uid-of-copy"}, "spec": {"suspend": true,
 "jobTemplate": {"metadata": {"labels": {"app": "copy"}}, "spec": {"backoffLimit": 3, "template": {"spec": {
  "containers": [{"name": "copy", "env": [{"name": "MORE", "value": "$(PLINTH_SNAPSHOT).tar"}]}, {"name": "beside"}],
  "volumes": [{"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}},
   {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Mi"}}}}}},
   {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "plinth", "resources": {"requests": {"storage": "64Mi"}},
    "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "any"}}}}}]}}}}}}`

func aCopier(t *testing.T, changes ...string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(strings.NewReplacer(changes...).Replace(template)), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// ends has Jobs that are made end with a condition.
func (b *bed) ends(condition string) {
	b.client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if condition != "" {
			a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured).Object["status"] = map[string]any{
				"conditions": []any{map[string]any{"type": condition, "status": "True", "reason": "Because", "message": "it says so"}},
			}
		}
		return false, nil, nil
	})
}

func TestCopy(t *testing.T) {
	for _, c := range []struct {
		name, ends string
		change     []string // of the CronJob
		says       string
		fails      bool
	}{
		{name: "done", ends: "Complete", says: "the snapshot is copied"},
		{name: "failed", ends: "Failed", says: "Because: it says so", fails: true},
		{name: "goes on", says: "has not ended", fails: true},
		{name: "not there", change: []string{`"name": "copy", "uid"`, `"name": "other", "uid"`}, says: "which is to copy", fails: true},
		{name: "on its own clock", change: []string{`"suspend": true`, `"suspend": false`}, says: "suspend: true", fails: true},
		{name: "nowhere to put it", change: []string{"VolumeSnapshot", "Other"}, says: "no ephemeral volume", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, aClaim("shop", "data"), aSnapshot("a", ready, 1), aSnapshot("b", ready, 2), aCopier(t, c.change...))
			b.cfg.CopyWith = "copy"
			b.ends(c.ends)
			err := b.run(t)
			if said := b.log.String() + fmt.Sprint(err); errors.Is(err, ErrFailed) != c.fails || !strings.Contains(said, c.says) {
				t.Errorf("no %q in\n%s", c.says, said)
			}
			if got := b.names(t, "shop"); !slices.Equal(got, []string{"a", fresh}) {
				t.Errorf("there are %v", got)
			}
		})
	}
}

// TestCopyJob: what the Job is, and that there is one for a snapshot.
func TestCopyJob(t *testing.T) {
	b := setUp(t, aClaim("shop", "data"), aCopier(t))
	b.cfg.CopyWith = "copy"
	b.ends("Complete")
	b.client.PrependReactor("create", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
		u := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		u.SetUID("uid-of-it")
		return false, nil, nil
	})
	for range 2 {
		if err := b.run(t); err != nil {
			t.Fatal(err)
		}
	}
	l, err := b.client.Resource(jobs).Namespace("shop").List(context.Background(), metav1.ListOptions{})
	if err != nil || len(l.Items) != 1 {
		t.Fatalf("%d Jobs, %v", len(l.Items), err)
	}
	job := l.Items[0]
	o := job.GetOwnerReferences()
	if len(o) != 1 || o[0].UID != "uid-of-copy" || !*o[0].Controller || job.GetLabels()["app"] != "copy" || !strings.HasPrefix(job.GetName(), "copy-") {
		t.Errorf("%s, of %+v, with labels %v", job.GetName(), o, job.GetLabels())
	}
	spec, _ := json.Marshal(job.Object["spec"])
	for _, want := range []string{
		`"backoffLimit":3`, `"name":"` + fresh + `"`, `"storageClassName":"plinth"`, `"storage":"1Mi"`, `"storage":"64Mi"`,
		`{"env":[{"name":"PLINTH_SNAPSHOT","value":"` + fresh + `"},{"name":"PLINTH_CLAIM","value":"data"},{"name":"MORE","value":"$(PLINTH_SNAPSHOT).tar"}],"name":"copy"}`,
		`{"env":[{"name":"PLINTH_SNAPSHOT","value":"` + fresh + `"},{"name":"PLINTH_CLAIM","value":"data"}],"name":"beside"}`,
	} {
		if !strings.Contains(string(spec), want) {
			t.Errorf("no %s in\n%s", want, spec)
		}
	}
}

// TestCopySize: a volume that has grown is not too large for the copy.
func TestCopySize(t *testing.T) {
	from, err := decode[copier](aCopier(t))
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[string]string{"": "64Mi", "32Mi": "64Mi", "67108864": "64Mi", "65Mi": "65Mi", "1Gi": "1Gi"} {
		made := &snapshot{}
		made.Status.RestoreSize = size
		job, err := copyOf(from, &claim{}, made)
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := json.Marshal(job.Object["spec"])
		if !strings.Contains(string(spec), `"storage":"`+want+`"`) || !strings.Contains(string(spec), `"storage":"1Mi"`) {
			t.Errorf("a snapshot of %q is given %s", size, spec)
		}
	}
}
