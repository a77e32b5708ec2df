package schedule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
)

// The resources that a run reads and writes. Their typed clients are too large
// for the program of the node agent, which this one is, too (docs/design.md).
var (
	claims    = schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}
	cronJobs  = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}
	jobs      = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}
	snapshots = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}
)

// annotationScheduled is on a Job that a CronJob made: the time it was to be
// made at (KEP-4026).
const annotationScheduled = "batch.kubernetes.io/cronjob-scheduled-timestamp"

// pageSize is how many objects are listed at a time.
const pageSize = 500

// pause is between two attempts at what the API server refused.
const pause = time.Second

// claim is of a PersistentVolumeClaim what matters here.
type claim struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

// snapshot is of a VolumeSnapshot what matters here.
type snapshot struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		Ready        bool         `json:"readyToUse"`
		CreationTime *metav1.Time `json:"creationTime"` // when the data was fixed
		RestoreSize  string       `json:"restoreSize"`
		Error        *struct {
			Message string `json:"message"`
		} `json:"error"`
	} `json:"status"`
}

// failed says that nothing was taken, and an error why. It may still be tried
// again.
func (s *snapshot) failed() bool {
	return !s.Status.Ready && s.Status.CreationTime == nil && s.Status.Error != nil
}

// takenAt is when the data was fixed, as far as that is known.
func (s *snapshot) takenAt() time.Time {
	if s.Status.CreationTime != nil {
		return s.Status.CreationTime.Time
	}
	return s.CreationTimestamp.Time
}

// why says what a snapshot that is not ready waits for.
func (s *snapshot) why() string {
	switch {
	case s.Status.Error != nil:
		return s.Status.Error.Message
	case s.Status.CreationTime != nil:
		return "it is taken, and its data is being copied"
	}
	return "nothing has taken it yet; do the cluster's snapshot-controller and Plinth's csi-snapshotter run?"
}

// nameTime is how a time is part of a snapshot's name.
const nameTime = "20060102-150405"

// snapshotName names the snapshot of a claim at a time: schedule.claim.time.
// No two claims have the same, because a schedule's name and a time have no dot.
func snapshotName(schedule, claim string, at time.Time) string {
	end := "." + at.UTC().Format(nameTime)
	room := validation.DNS1123SubdomainMaxLength - len(schedule) - len(".") - len(end)
	if len(claim) > room {
		sum := sha256.Sum256([]byte(claim))
		hash := "-" + hex.EncodeToString(sum[:8])
		claim = strings.TrimRight(claim[:room-len(hash)], ".-") + hash
	}
	return schedule + "." + claim + end
}

// objects reads and writes what a run needs of the API server.
type objects struct{ client dynamic.Interface }

// list reads all objects of a namespace, "" is all namespaces, that a label
// selector finds.
func list[T any](ctx context.Context, o objects, r schema.GroupVersionResource, namespace, selector string) ([]*T, error) {
	var out []*T
	for page := ""; ; {
		l, err := o.client.Resource(r).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: pageSize, Continue: page})
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("this cluster has no %s.%s; install the snapshot-controller and its resource definitions: %w", r.Resource, r.Group, err)
		} else if err != nil {
			return nil, fmt.Errorf("listing %s: %w", r.Resource, err)
		}
		for i := range l.Items {
			decoded, err := decode[T](&l.Items[i])
			if err != nil {
				return nil, err
			}
			out = append(out, decoded)
		}
		if page = l.GetContinue(); page == "" {
			return out, nil
		}
	}
}

func decode[T any](u *unstructured.Unstructured) (*T, error) {
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return out, nil
}

func (o objects) claims(ctx context.Context, namespace, selector string) ([]*claim, error) {
	return list[claim](ctx, o, claims, namespace, selector)
}

func (o objects) snapshots(ctx context.Context, namespace, selector string) ([]*snapshot, error) {
	return list[snapshot](ctx, o, snapshots, namespace, selector)
}

// jobTime is when the Job was to be made by its CronJob, or was made.
func (o objects) jobTime(ctx context.Context, namespace, name string) (time.Time, error) {
	u, err := o.client.Resource(jobs).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the Job %s/%s of this run: %w", namespace, name, err)
	}
	if text := u.GetAnnotations()[annotationScheduled]; text != "" {
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			return at, nil
		}
	}
	return u.GetCreationTimestamp().Time, nil
}

// create makes a VolumeSnapshot of a claim, or returns the one of that name.
func (o objects) create(ctx context.Context, c *claim, name, class string, labels map[string]string) (*snapshot, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(snapshots.GroupVersion().WithKind("VolumeSnapshot"))
	u.SetNamespace(c.Namespace)
	u.SetName(name)
	u.SetLabels(labels)
	spec := map[string]any{"source": map[string]any{"persistentVolumeClaimName": c.Name}}
	if class != "" {
		spec["volumeSnapshotClassName"] = class
	}
	u.Object["spec"] = spec
	made, err := o.client.Resource(snapshots).Namespace(c.Namespace).Create(ctx, u, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return o.snapshot(ctx, c.Namespace, name)
	} else if err != nil {
		return nil, fmt.Errorf("creating VolumeSnapshot %s/%s: %w", c.Namespace, name, err)
	}
	return decode[snapshot](made)
}

func (o objects) snapshot(ctx context.Context, namespace, name string) (*snapshot, error) {
	u, err := o.client.Resource(snapshots).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading VolumeSnapshot %s/%s: %w", namespace, name, err)
	}
	return decode[snapshot](u)
}

// remove deletes a snapshot as it was seen. One that is gone is no error; one
// that was changed meanwhile, perhaps to be kept, stays, and that is one.
func (o objects) remove(ctx context.Context, s *snapshot) error {
	seen := metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}
	err := o.client.Resource(snapshots).Namespace(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &seen})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting VolumeSnapshot %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// await watches a snapshot until it is ready, or the deadline is over: then
// errNotReady says what is missing. Requests are made until ctx ends, so that a
// deadline that another snapshot used up does not hide that this one is ready.
func (o objects) await(ctx, deadline context.Context, namespace, name string) (*snapshot, error) {
	for {
		s, err := o.snapshot(ctx, namespace, name)
		switch {
		case err != nil:
			return nil, err
		case s.DeletionTimestamp != nil:
			return nil, fmt.Errorf("%w: VolumeSnapshot %s is being deleted", errNotReady, name)
		case s.Status.Ready:
			return s, nil
		case deadline.Err() != nil:
			return nil, fmt.Errorf("%w: VolumeSnapshot %s: %s", errNotReady, name, s.why())
		}
		o.changed(deadline, snapshots, namespace, name, s.ResourceVersion)
	}
}

// changed returns when an object may have changed since a version of it, or
// the context ends.
func (o objects) changed(ctx context.Context, r schema.GroupVersionResource, namespace, name, version string) {
	w, err := o.client.Resource(r).Namespace(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: version})
	if err == nil {
		defer w.Stop()
		select {
		case _, open := <-w.ResultChan():
			if open {
				return
			}
		case <-ctx.Done():
			return
		}
	}
	// Not at once again, whatever is wrong with watching.
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
