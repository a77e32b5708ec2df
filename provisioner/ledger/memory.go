package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Memory is the ledger in memory, for tests. It keeps the rules of the API
// server that Plinth leans on: resource versions and conflicts, a generation
// that counts spec changes, a status that only the status call writes,
// finalizers that hold a deleted object, and watches by field. The zero value
// is an empty ledger.
type Memory struct {
	// Fail, if set, is asked before each write with what it is (CreateVolume,
	// UpdateVolumeStatus, …) and the object's name; an error is returned
	// instead of writing. Set it before use.
	Fail func(op, name string) error

	// Gone is what Withdrawn says. Set it before use.
	Gone bool

	mu       sync.Mutex
	version  int64
	volumes  map[string]*v1alpha1.PlinthVolume
	snaps    map[string]*v1alpha1.PlinthSnapshot
	nodes    map[string]*v1alpha1.PlinthNode
	history  []past
	watchers []*watcher
	writes   map[string]int
}

// Writes says how often the named operation was carried out.
func (m *Memory) Writes(op string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes[op]
}

// CreateVolume implements Store.
func (m *Memory) CreateVolume(_ context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error) {
	return create(m, "CreateVolume", m.volumeMap, v, func(o *v1alpha1.PlinthVolume) { o.Status = v1alpha1.PlinthVolumeStatus{} })
}

// GetVolume implements Store.
func (m *Memory) GetVolume(_ context.Context, name string) (*v1alpha1.PlinthVolume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.volumes[name]
	if !ok {
		return nil, apierrors.NewNotFound(resourceOf(volumes), name)
	}
	return v.DeepCopy(), nil
}

// ResizeVolume implements Store.
func (m *Memory) ResizeVolume(_ context.Context, v *v1alpha1.PlinthVolume, size resource.Quantity) (*v1alpha1.PlinthVolume, error) {
	return m.changeVolume("ResizeVolume", v, false, func(o *v1alpha1.PlinthVolume) error {
		if size.Cmp(o.Spec.Size) < 0 && (o.Status.Size == nil || size.Cmp(*o.Status.Size) < 0) {
			return apierrors.NewBadRequest("a volume never shrinks")
		}
		o.Spec.Size = size
		return nil
	})
}

// ModifyVolume implements Store.
func (m *Memory) ModifyVolume(_ context.Context, v *v1alpha1.PlinthVolume, to v1alpha1.VolumeAttributes) (*v1alpha1.PlinthVolume, error) {
	return m.changeVolume("ModifyVolume", v, false, func(o *v1alpha1.PlinthVolume) error {
		o.Spec.Attributes = &to
		return nil
	})
}

// AssignVolume implements Store.
func (m *Memory) AssignVolume(_ context.Context, v *v1alpha1.PlinthVolume, to Holder) (*v1alpha1.PlinthVolume, error) {
	return m.changeVolume("AssignVolume", v, true, func(o *v1alpha1.PlinthVolume) error {
		o.Spec.ClaimNamespace, o.Spec.ClaimName, o.Spec.ClaimUID, o.Spec.StorageClassName = to.Namespace, to.Name, to.UID, to.Class
		o.Spec.Retained, o.Spec.TrashKeep, o.Spec.TrashedUntil = to.Retained, to.TrashKeep, nil
		return nil
	})
}

// MoveVolume implements Store.
func (m *Memory) MoveVolume(_ context.Context, v *v1alpha1.PlinthVolume, node string) error {
	_, err := m.changeVolume("MoveVolume", v, true, func(o *v1alpha1.PlinthVolume) error {
		if !o.Spec.Shared {
			return apierrors.NewBadRequest("where a volume is never changes")
		}
		o.Spec.NodeName = node
		return nil
	})
	return err
}

// HoldVolume implements Store.
func (m *Memory) HoldVolume(_ context.Context, v *v1alpha1.PlinthVolume) error {
	_, err := m.changeVolume("HoldVolume", v, true, func(o *v1alpha1.PlinthVolume) error {
		o.Finalizers = append(o.Finalizers, v1alpha1.Finalizer)
		return nil
	})
	return ignoreGone(err)
}

// TrashVolume implements Store.
func (m *Memory) TrashVolume(_ context.Context, v *v1alpha1.PlinthVolume, until metav1.Time) error {
	_, err := m.changeVolume("TrashVolume", v, true, func(o *v1alpha1.PlinthVolume) error {
		o.Spec.Retained, o.Spec.TrashedUntil = true, &until
		return nil
	})
	return err
}

// ExpireVolume implements Store.
func (m *Memory) ExpireVolume(_ context.Context, v *v1alpha1.PlinthVolume) error {
	_, err := m.changeVolume("ExpireVolume", v, true, marked[v1alpha1.PlinthVolume])
	return ignoreGone(err)
}

// DeleteVolume implements Store.
func (m *Memory) DeleteVolume(_ context.Context, v *v1alpha1.PlinthVolume) error {
	_, err := m.changeVolume("DeleteVolume", v, false, marked[v1alpha1.PlinthVolume])
	return ignoreGone(err)
}

// UpdateVolumeStatus writes the status of v; Conflict if v is not the newest.
func (m *Memory) UpdateVolumeStatus(_ context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error) {
	return m.changeVolume("UpdateVolumeStatus", v, true, func(o *v1alpha1.PlinthVolume) error {
		v.Status.DeepCopyInto(&o.Status)
		return nil
	})
}

// ReleaseVolume removes Plinth's finalizer; Conflict if v is not the newest.
func (m *Memory) ReleaseVolume(_ context.Context, v *v1alpha1.PlinthVolume) error {
	_, err := m.changeVolume("ReleaseVolume", v, true, released[v1alpha1.PlinthVolume])
	return ignoreGone(err)
}

// Withdrawn says whether the kinds are being taken out of the API.
func (m *Memory) Withdrawn(context.Context) (bool, error) { return m.Gone, nil }

// GetNode reads one PlinthNode; NotFound where it is absent.
func (m *Memory) GetNode(_ context.Context, name string) (*v1alpha1.PlinthNode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.nodes[name]
	if !ok {
		return nil, apierrors.NewNotFound(resourceOf(nodes), name)
	}
	return n.DeepCopy(), nil
}

// CreateNode writes a new PlinthNode, without its status.
func (m *Memory) CreateNode(_ context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error) {
	return create(m, "CreateNode", m.nodeMap, n, func(o *v1alpha1.PlinthNode) { o.Status = v1alpha1.PlinthNodeStatus{} })
}

// UpdateNodeStatus writes the status of n; Conflict if n is not the newest.
func (m *Memory) UpdateNodeStatus(_ context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error) {
	return m.changeNode("UpdateNodeStatus", n, true, func(o *v1alpha1.PlinthNode) { n.Status.DeepCopyInto(&o.Status) })
}

// OwnNode implements Store.
func (m *Memory) OwnNode(_ context.Context, n *v1alpha1.PlinthNode, owner metav1.OwnerReference) error {
	_, err := m.changeNode("OwnNode", n, false, func(o *v1alpha1.PlinthNode) {
		o.OwnerReferences = []metav1.OwnerReference{owner}
	})
	return err
}

// DeleteNode removes a PlinthNode, as the garbage collector does.
func (m *Memory) DeleteNode(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.nodes[name]; ok {
		m.version++
		delete(m.nodes, name)
		m.send(watch.Deleted, n)
	}
}

func (m *Memory) volumeMap() map[string]*v1alpha1.PlinthVolume {
	if m.volumes == nil {
		m.volumes = map[string]*v1alpha1.PlinthVolume{}
	}
	return m.volumes
}

func (m *Memory) nodeMap() map[string]*v1alpha1.PlinthNode {
	if m.nodes == nil {
		m.nodes = map[string]*v1alpha1.PlinthNode{}
	}
	return m.nodes
}

// object is one of the kinds, as a pointer.
type object[T any] interface {
	*T
	metav1.Object
	runtime.Object
	DeepCopy() *T
}

func create[T any, P object[T]](m *Memory, op string, kept func() map[string]*T, in P, reset func(*T)) (*T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := in.GetName()
	if _, ok := kept()[name]; ok {
		return nil, apierrors.NewAlreadyExists(resourceOf(op), name)
	}
	if err := m.admit(op, name); err != nil {
		return nil, err
	}
	out := in.DeepCopy()
	o := P(out)
	m.version++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", m.version)))
	o.SetGeneration(1)
	o.SetCreationTimestamp(metav1.Now())
	o.SetResourceVersion(strconv.FormatInt(m.version, 10))
	reset(out)
	kept()[name] = out
	m.send(watch.Added, o)
	return o.DeepCopy(), nil
}

// change applies what do says to the stored object that given names.
func change[T any, P object[T]](m *Memory, op, kind string, kept map[string]*T, given P, newest bool, do func(P) error) (*T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := given.GetName()
	stored, ok := kept[name]
	if !ok {
		return nil, apierrors.NewNotFound(resourceOf(kind), name)
	}
	old := P(stored)
	if err := conflict(kind, old, given, newest); err != nil {
		return nil, err
	}
	if err := m.admit(op, name); err != nil {
		return nil, err
	}
	o := P(old.DeepCopy())
	if err := do(o); err != nil {
		return nil, err
	}
	if equality.Semantic.DeepEqual(o, old) && len(o.GetFinalizers()) > 0 {
		return o, nil // as the API server: no change, no event
	}
	m.version++
	o.SetResourceVersion(strconv.FormatInt(m.version, 10))
	if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
		delete(kept, name)
		m.send(watch.Deleted, o)
		return o.DeepCopy(), nil
	}
	kept[name] = o
	m.send(watch.Modified, o)
	return o.DeepCopy(), nil
}

// changeVolume is change for a volume, whose generation counts its intents.
func (m *Memory) changeVolume(op string, v *v1alpha1.PlinthVolume, newest bool, do func(*v1alpha1.PlinthVolume) error) (*v1alpha1.PlinthVolume, error) {
	return change(m, op, volumes, m.volumes, v, newest, func(o *v1alpha1.PlinthVolume) error {
		spec, deleted := o.Spec.DeepCopy(), o.DeletionTimestamp != nil
		err := do(o)
		if !equality.Semantic.DeepEqual(*spec, o.Spec) || (o.DeletionTimestamp != nil) != deleted {
			o.Generation++
		}
		return err
	})
}

func (m *Memory) changeNode(op string, n *v1alpha1.PlinthNode, newest bool, do func(*v1alpha1.PlinthNode)) (*v1alpha1.PlinthNode, error) {
	return change(m, op, nodes, m.nodes, n, newest, func(o *v1alpha1.PlinthNode) error {
		do(o)
		return nil
	})
}

// admit asks Fail and counts the write.
func (m *Memory) admit(op, name string) error {
	if m.Fail != nil {
		if err := m.Fail(op, name); err != nil {
			return err
		}
	}
	if m.writes == nil {
		m.writes = map[string]int{}
	}
	m.writes[op]++
	return nil
}

func conflict(kind string, old, given metav1.Object, newest bool) error {
	if given.GetUID() != "" && given.GetUID() != old.GetUID() {
		return apierrors.NewConflict(resourceOf(kind), old.GetName(), fmt.Errorf("uid is %s", old.GetUID()))
	}
	if newest && given.GetResourceVersion() != old.GetResourceVersion() {
		return apierrors.NewConflict(resourceOf(kind), old.GetName(), fmt.Errorf("resourceVersion is %s", old.GetResourceVersion()))
	}
	return nil
}

func resourceOf(kind string) schema.GroupResource {
	return schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: kind}
}

// sortedNames makes lists deterministic.
func sortedNames[T any](kept map[string]T) []string { return slices.Sorted(maps.Keys(kept)) }
