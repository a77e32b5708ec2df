// Package plugin is what `kubectl plinth` does: it lists what the ledger
// holds, for people, and writes the few objects that an administrator would
// write by hand. It works through the API server alone, with the rights of
// whoever calls it, and never on more than the one object that was named.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Plugin is one call of the plugin.
type Plugin struct {
	Client dynamic.Interface
	Out    io.Writer // what was asked for
	Err    io.Writer // what else there is to say
	Now    func() time.Time
}

// The resources that the plugin reads and writes.
var (
	volumes   = v1alpha1.GroupVersion.WithResource("plinthvolumes")
	nodes     = v1alpha1.GroupVersion.WithResource("plinthnodes")
	snapshots = v1alpha1.GroupVersion.WithResource("plinthsnapshots")
	claims    = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	pvs       = corev1.SchemeGroupVersion.WithResource("persistentvolumes")
	classes   = storagev1.SchemeGroupVersion.WithResource("storageclasses")
)

// errUsage is what whoever calls can mend by calling otherwise.
var errUsage = errors.New("nothing was changed")

// refuse is an error that names the way out.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%s (%w)", fmt.Sprintf(format, args...), errUsage)
}

// list reads all objects of a resource that has no namespace.
func list[T any](ctx context.Context, p *Plugin, r schema.GroupVersionResource) ([]T, error) {
	l, err := p.Client.Resource(r).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("this cluster has no %s.%s; is Plinth installed, and is this the context you mean? (%w)", r.Resource, r.Group, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", r.Resource, err)
	}
	out := make([]T, len(l.Items))
	for i := range l.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(l.Items[i].Object, &out[i]); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", r.Resource, l.Items[i].GetName(), err)
		}
	}
	return out, nil
}

// get reads one object; an error of the API server's is wrapped.
func get[T any](ctx context.Context, of dynamic.ResourceInterface, what, name string) (*T, error) {
	u, err := of.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", what, name, err)
	}
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", what, name, err)
	}
	return out, nil
}

// volume reads the one PlinthVolume that was named.
func (p *Plugin) volume(ctx context.Context, name string) (*v1alpha1.PlinthVolume, error) {
	v, err := get[v1alpha1.PlinthVolume](ctx, p.Client.Resource(volumes), "PlinthVolume", name)
	if apierrors.IsNotFound(err) {
		return nil, refuse("there is no PlinthVolume %s; `kubectl plinth list` shows those that there are", name)
	}
	return v, err
}

// unstructuredOf is an object as the dynamic client sends it.
func unstructuredOf(o runtime.Object) (*unstructured.Unstructured, error) {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	delete(m, "status")
	unstructured.RemoveNestedField(m, "metadata", "creationTimestamp")
	return &unstructured.Unstructured{Object: m}, nil
}
