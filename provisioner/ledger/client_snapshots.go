package ledger

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// snapshots is the resource of plinth.dev for PlinthSnapshot.
const snapshots = "plinthsnapshots"

// CreateSnapshot writes a new PlinthSnapshot; AlreadyExists if the name is taken.
func (c *Client) CreateSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error) {
	out := &v1alpha1.PlinthSnapshot{}
	err := c.rest.Post().Resource(snapshots).Body(s).Do(ctx).Into(out)
	return out, wrap(err, "creating PlinthSnapshot", s.Name)
}

// GetSnapshot reads one PlinthSnapshot from the API server itself.
func (c *Client) GetSnapshot(ctx context.Context, name string) (*v1alpha1.PlinthSnapshot, error) {
	out := &v1alpha1.PlinthSnapshot{}
	err := c.rest.Get().Resource(snapshots).Name(name).Do(ctx).Into(out)
	return out, wrap(err, "reading PlinthSnapshot", name)
}

// MoveSnapshot has another node look after s, which is in a shared pool; the
// API server refuses it for any other. Conflict if s is not the newest.
func (c *Client) MoveSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot, node string) error {
	err := c.patch(ctx, snapshots, s.Name, move(s, node), &v1alpha1.PlinthSnapshot{})
	return wrap(err, "moving PlinthSnapshot", s.Name)
}

// DeleteSnapshot asks for the deletion of s, by name and UID. The object is
// gone only once its node has freed the bytes. An absent one is no error.
func (c *Client) DeleteSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	opts := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}}
	err := c.rest.Delete().Resource(snapshots).Name(s.Name).Body(opts).Do(ctx).Error()
	return wrap(ignoreGone(err), "deleting PlinthSnapshot", s.Name)
}

// UpdateSnapshotStatus writes the status of s; Conflict if s is not the newest.
func (c *Client) UpdateSnapshotStatus(ctx context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error) {
	out := &v1alpha1.PlinthSnapshot{}
	err := c.rest.Put().Resource(snapshots).Name(s.Name).SubResource("status").Body(s).Do(ctx).Into(out)
	return out, wrap(err, "writing the status of PlinthSnapshot", s.Name)
}

// ReleaseSnapshot removes Plinth's finalizer from s; Conflict if s is not the
// newest. An absent object is no error.
func (c *Client) ReleaseSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error {
	err := c.patch(ctx, snapshots, s.Name, release(s), &v1alpha1.PlinthSnapshot{})
	return wrap(ignoreGone(err), "releasing PlinthSnapshot", s.Name)
}

// WatchSnapshots lists and watches the snapshots of one node, or all of them
// where node is "".
func (c *Client) WatchSnapshots(node string) cache.ListerWatcher {
	return c.listWatch(snapshots, nodeNameField, node, func() runtime.Object { return &v1alpha1.PlinthSnapshotList{} })
}
