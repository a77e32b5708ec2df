package schedule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The environment of a Job that copies a snapshot.
const (
	envSnapshot = "PLINTH_SNAPSHOT" // its name, which sorts by time among those of a claim
	envClaim    = "PLINTH_CLAIM"
)

// errCopy is of a snapshot that was taken and not copied.
var errCopy = errors.New("not copied")

// copier is of a CronJob what a Job is made from.
type copier struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Suspend     bool           `json:"suspend"`
		JobTemplate map[string]any `json:"jobTemplate"`
	} `json:"spec"`
}

// copyJob is of a Job what matters of one that copies.
type copyJob struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// copy runs the Job that copies a snapshot, and waits for its end. There is one
// Job for a snapshot: a second try of the run waits for that of the first.
func (s *Schedule) copy(ctx, deadline context.Context, t *task, made *snapshot) error {
	from, err := s.objects.copier(ctx, made.Namespace, s.CopyWith)
	if err != nil {
		return err
	}
	job, err := copyOf(from, t.claim, made)
	if err != nil {
		return err
	}
	of := s.objects.client.Resource(jobs).Namespace(made.Namespace)
	if _, err := of.Create(ctx, job, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating Job %s/%s: %w", made.Namespace, job.GetName(), err)
	}
	if err := s.objects.awaitJob(ctx, deadline, made.Namespace, job.GetName()); err != nil {
		return fmt.Errorf("snapshot %s: %w", made.Name, err)
	}
	s.about(t).Info("the snapshot is copied", "job", job.GetName())
	return nil
}

func (o objects) copier(ctx context.Context, namespace, name string) (*copier, error) {
	u, err := o.client.Resource(cronJobs).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading CronJob %s/%s, which is to copy: %w", namespace, name, err)
	}
	c, err := decode[copier](u)
	if err == nil && !c.Spec.Suspend {
		err = fmt.Errorf("%w: CronJob %s/%s also runs by its own clock; set its suspend: true", errCopy, namespace, name)
	}
	return c, err
}

// copyOf is the Job that copies a snapshot: the CronJob's, which owns it, with
// volumes that start with this VolumeSnapshot and are large enough for it.
func copyOf(from *copier, c *claim, made *snapshot) (*unstructured.Unstructured, error) {
	template := (&unstructured.Unstructured{Object: from.Spec.JobTemplate}).DeepCopy()
	sum := sha256.Sum256([]byte(made.UID))
	job := &unstructured.Unstructured{Object: map[string]any{"spec": template.Object["spec"]}}
	job.SetGroupVersionKind(jobs.GroupVersion().WithKind("Job"))
	job.SetNamespace(made.Namespace)
	job.SetName(from.Name + "-" + hex.EncodeToString(sum[:5]))
	job.SetLabels(template.GetLabels())
	annotations := template.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations["cronjob.kubernetes.io/instantiate"] = "manual" // as kubectl create job --from does
	job.SetAnnotations(annotations)
	job.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: from.Name, UID: from.UID, Controller: new(true)}})

	pod, _, err := unstructured.NestedMap(job.Object, "spec", "template", "spec")
	if err != nil || pod == nil {
		return nil, fmt.Errorf("%w: CronJob %s has no pod: %v", errCopy, from.Name, err)
	}
	volumes, _ := pod["volumes"].([]any)
	found := 0
	for _, v := range volumes {
		if v, ok := v.(map[string]any); ok && startWith(v, made) {
			found++
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("%w: CronJob %s has no ephemeral volume with a dataSource of kind VolumeSnapshot to put this one in", errCopy, from.Name)
	}
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := pod[list].([]any)
		for _, c2 := range containers {
			if c2, ok := c2.(map[string]any); ok {
				env, _ := c2["env"].([]any)
				c2["env"] = append([]any{
					map[string]any{"name": envSnapshot, "value": made.Name},
					map[string]any{"name": envClaim, "value": c.Name},
				}, env...)
			}
		}
	}
	return job, unstructured.SetNestedMap(job.Object, pod, "spec", "template", "spec")
}

// startWith has an ephemeral volume that starts with a VolumeSnapshot start
// with this one; false for any other volume.
func startWith(v map[string]any, made *snapshot) bool {
	claim, _, err := unstructured.NestedMap(v, "ephemeral", "volumeClaimTemplate", "spec")
	if err != nil || claim == nil {
		return false
	}
	found := false
	for _, key := range []string{"dataSource", "dataSourceRef"} {
		source, _ := claim[key].(map[string]any)
		if source["kind"] == "VolumeSnapshot" && source["apiGroup"] == snapshots.Group {
			source["name"] = made.Name
			found = true
		}
	}
	asked, _, _ := unstructured.NestedString(claim, "resources", "requests", "storage")
	if larger(made.Status.RestoreSize, asked) {
		// There is no other fault but a map that is none, which the API server tells.
		_ = unstructured.SetNestedField(claim, made.Status.RestoreSize, "resources", "requests", "storage")
	}
	if found {
		_ = unstructured.SetNestedMap(v, claim, "ephemeral", "volumeClaimTemplate", "spec")
	}
	return found
}

// larger says whether size a is above b; what is no size is below any.
func larger(a, b string) bool {
	is, err := resource.ParseQuantity(a)
	if err != nil {
		return false
	}
	than, err := resource.ParseQuantity(b)
	return err != nil || is.Cmp(than) > 0
}

// awaitJob watches a Job until it has an end.
func (o objects) awaitJob(ctx, deadline context.Context, namespace, name string) error {
	for {
		u, err := o.client.Resource(jobs).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading Job %s/%s: %w", namespace, name, err)
		}
		j, err := decode[copyJob](u)
		if err != nil {
			return err
		}
		for _, c := range j.Status.Conditions {
			switch {
			case c.Status != "True":
			case c.Type == "Complete":
				return nil
			case c.Type == "Failed":
				return fmt.Errorf("%w: Job %s failed: %s: %s", errCopy, name, c.Reason, c.Message)
			}
		}
		if deadline.Err() != nil {
			return fmt.Errorf("%w: Job %s has not ended", errCopy, name)
		}
		o.changed(deadline, jobs, namespace, name, j.ResourceVersion)
	}
}
