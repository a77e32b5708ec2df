package ledger

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The fields that a watch may select by: the selectable field of the CRD, and
// the name, which every kind has.
const (
	nodeNameField = "spec.nodeName"
	nameField     = "metadata.name"
)

// WatchVolumes lists and watches the volumes of one node, or all of them
// where node is "". The API server selects, so an agent's memory and traffic
// do not grow with the cluster.
func (c *Client) WatchVolumes(node string) cache.ListerWatcher {
	return c.listWatch(volumes, nodeNameField, node, func() runtime.Object { return &v1alpha1.PlinthVolumeList{} })
}

// WatchNodes lists and watches one PlinthNode, or all of them where name is "".
func (c *Client) WatchNodes(name string) cache.ListerWatcher {
	return c.listWatch(nodes, nameField, name, func() runtime.Object { return &v1alpha1.PlinthNodeList{} })
}

func (c *Client) listWatch(kind, field, value string, list func() runtime.Object) cache.ListerWatcher {
	selector := fields.Everything()
	if value != "" {
		selector = fields.OneTermEqualSelector(field, value)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector.String()
			out := list()
			err := c.rest.Get().Resource(kind).VersionedParams(&o, c.param).Do(ctx).Into(out)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector, o.Watch = selector.String(), true
			var timeout time.Duration
			if o.TimeoutSeconds != nil {
				timeout = time.Duration(*o.TimeoutSeconds) * time.Second
			}
			return c.rest.Get().Resource(kind).VersionedParams(&o, c.param).Timeout(timeout).Watch(ctx)
		},
	}
}

// ignoreGone hides the error of changing an object that is not there, or
// whose name another one has taken.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
