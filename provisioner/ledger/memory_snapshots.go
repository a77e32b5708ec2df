package ledger

import (
	"context"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// CreateSnapshot implements Store.
func (m *Memory) CreateSnapshot(_ context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error) {
	return create(m, "CreateSnapshot", m.snapshotMap, s, func(o *v1alpha1.PlinthSnapshot) { o.Status = v1alpha1.PlinthSnapshotStatus{} })
}

// GetSnapshot implements Store.
func (m *Memory) GetSnapshot(_ context.Context, name string) (*v1alpha1.PlinthSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.snaps[name]
	if !ok {
		return nil, apierrors.NewNotFound(resourceOf(snapshots), name)
	}
	return s.DeepCopy(), nil
}

// MoveSnapshot implements Store.
func (m *Memory) MoveSnapshot(_ context.Context, s *v1alpha1.PlinthSnapshot, node string) error {
	_, err := change(m, "MoveSnapshot", snapshots, m.snaps, s, true, func(o *v1alpha1.PlinthSnapshot) error {
		if !o.Spec.Shared {
			return apierrors.NewBadRequest("a snapshot never changes")
		}
		o.Spec.NodeName = node
		return nil
	})
	return err
}

// DeleteSnapshot implements Store.
func (m *Memory) DeleteSnapshot(_ context.Context, s *v1alpha1.PlinthSnapshot) error {
	_, err := change(m, "DeleteSnapshot", snapshots, m.snaps, s, false, marked[v1alpha1.PlinthSnapshot])
	return ignoreGone(err)
}

// UpdateSnapshotStatus writes the status of s; Conflict if s is not the newest.
func (m *Memory) UpdateSnapshotStatus(_ context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error) {
	return change(m, "UpdateSnapshotStatus", snapshots, m.snaps, s, true, func(o *v1alpha1.PlinthSnapshot) error {
		s.Status.DeepCopyInto(&o.Status)
		return nil
	})
}

// ReleaseSnapshot removes Plinth's finalizer; Conflict if s is not the newest.
func (m *Memory) ReleaseSnapshot(_ context.Context, s *v1alpha1.PlinthSnapshot) error {
	_, err := change(m, "ReleaseSnapshot", snapshots, m.snaps, s, true, released[v1alpha1.PlinthSnapshot])
	return ignoreGone(err)
}

// WatchSnapshots implements Store.
func (m *Memory) WatchSnapshots(node string) cache.ListerWatcher {
	selects := func(o runtime.Object) bool {
		s, ok := o.(*v1alpha1.PlinthSnapshot)
		return ok && (node == "" || s.Spec.NodeName == node)
	}
	return &memoryListWatch{m: m, selects: selects, list: func() runtime.Object {
		l := &v1alpha1.PlinthSnapshotList{}
		l.ResourceVersion = strconv.FormatInt(m.version, 10)
		for _, name := range sortedNames(m.snaps) {
			if selects(m.snaps[name]) {
				l.Items = append(l.Items, *m.snaps[name].DeepCopy())
			}
		}
		return l
	}}
}

func (m *Memory) snapshotMap() map[string]*v1alpha1.PlinthSnapshot {
	if m.snaps == nil {
		m.snaps = map[string]*v1alpha1.PlinthSnapshot{}
	}
	return m.snaps
}

// marked has an object wait for its finalizers.
func marked[T any, P object[T]](o P) error {
	if o.GetDeletionTimestamp() == nil {
		now := metav1.Now()
		o.SetDeletionTimestamp(&now)
	}
	return nil
}

func released[T any, P object[T]](o P) error {
	o.SetFinalizers(slices.DeleteFunc(o.GetFinalizers(), func(f string) bool { return f == v1alpha1.Finalizer }))
	return nil
}
