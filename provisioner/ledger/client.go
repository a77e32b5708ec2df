package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// The resources of plinth.dev that the ledger keeps.
const (
	volumes = "plinthvolumes"
	nodes   = "plinthnodes"
)

// Client is the ledger over the API server. Errors are those of the API
// server (k8s.io/apimachinery/pkg/api/errors), with what was being done.
type Client struct {
	rest  rest.Interface
	param runtime.ParameterCodec
}

// NewClient returns the ledger of the cluster that cfg reaches. It sets no
// limit of its own on requests: the API server's fairness is the limit.
func NewClient(cfg *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the kinds of plinth.dev: %w", err)
	}
	c := rest.CopyConfig(cfg)
	c.GroupVersion = &v1alpha1.GroupVersion
	c.APIPath = "/apis"
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.QPS = -1
	rc, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for plinth.dev: %w", err)
	}
	return &Client{rest: rc, param: runtime.NewParameterCodec(scheme)}, nil
}

// CreateVolume writes a new PlinthVolume; AlreadyExists if the name is taken.
func (c *Client) CreateVolume(ctx context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error) {
	out := &v1alpha1.PlinthVolume{}
	err := c.rest.Post().Resource(volumes).Body(v).Do(ctx).Into(out)
	return out, wrap(err, "creating PlinthVolume", v.Name)
}

// GetVolume reads one PlinthVolume from the API server itself.
func (c *Client) GetVolume(ctx context.Context, name string) (*v1alpha1.PlinthVolume, error) {
	out := &v1alpha1.PlinthVolume{}
	err := c.rest.Get().Resource(volumes).Name(name).Do(ctx).Into(out)
	return out, wrap(err, "reading PlinthVolume", name)
}

// ResizeVolume sets the size that v is to have; v says which object, by name
// and UID. The API server refuses one below the size that holds; an intent to
// grow that failed can be taken back.
func (c *Client) ResizeVolume(ctx context.Context, v *v1alpha1.PlinthVolume, size resource.Quantity) (*v1alpha1.PlinthVolume, error) {
	patch := map[string]any{"metadata": map[string]any{"uid": v.UID}, "spec": map[string]any{"size": size}}
	out := &v1alpha1.PlinthVolume{}
	err := c.patch(ctx, volumes, v.Name, patch, out)
	return out, wrap(err, "resizing PlinthVolume", v.Name)
}

// ModifyVolume sets the attributes that v is to have, by name and UID.
func (c *Client) ModifyVolume(ctx context.Context, v *v1alpha1.PlinthVolume, to v1alpha1.VolumeAttributes) (*v1alpha1.PlinthVolume, error) {
	patch := map[string]any{"metadata": map[string]any{"uid": v.UID}, "spec": map[string]any{
		"attributes": map[string]any{"inodeLimit": to.InodeLimit, "softLimit": to.SoftLimit}, // also where they are zero
	}}
	out := &v1alpha1.PlinthVolume{}
	err := c.patch(ctx, volumes, v.Name, patch, out)
	return out, wrap(err, "modifying PlinthVolume", v.Name)
}

// AssignVolume says whose v is, or that it is nobody's, and takes it out of
// the trash; Conflict if v is not
// the newest, so that of two who want it one gets it.
func (c *Client) AssignVolume(ctx context.Context, v *v1alpha1.PlinthVolume, to Holder) (*v1alpha1.PlinthVolume, error) {
	patch := map[string]any{
		"metadata": map[string]any{"uid": v.UID, "resourceVersion": v.ResourceVersion},
		"spec": map[string]any{
			"retained": to.Retained, "trashKeep": to.TrashKeep, "trashedUntil": nil, "claimNamespace": to.Namespace, "claimName": to.Name, "claimUID": to.UID, "storageClassName": to.Class,
		},
	}
	out := &v1alpha1.PlinthVolume{}
	err := c.patch(ctx, volumes, v.Name, patch, out)
	return out, wrap(err, "assigning PlinthVolume", v.Name)
}

// MoveVolume has another node look after v, which is in a shared pool; the API
// server refuses it for any other. Conflict if v is not the newest.
func (c *Client) MoveVolume(ctx context.Context, v *v1alpha1.PlinthVolume, node string) error {
	err := c.patch(ctx, volumes, v.Name, move(v, node), &v1alpha1.PlinthVolume{})
	return wrap(err, "moving PlinthVolume", v.Name)
}

// move is the patch that gives exactly this state of an object to a node.
func move(o metav1.Object, node string) any {
	return map[string]any{
		"metadata": map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()},
		"spec":     map[string]any{"nodeName": node},
	}
}

// HoldVolume adds Plinth's finalizer to v, which somebody wrote without it;
// Conflict if v is not the newest. An absent object is no error.
func (c *Client) HoldVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	patch := map[string]any{"metadata": map[string]any{
		"uid": v.UID, "resourceVersion": v.ResourceVersion, "finalizers": append(slices.Clone(v.Finalizers), v1alpha1.Finalizer),
	}}
	err := c.patch(ctx, volumes, v.Name, patch, &v1alpha1.PlinthVolume{})
	return wrap(ignoreGone(err), "holding PlinthVolume", v.Name)
}

// TrashVolume puts v into the trash; Conflict if v is not the newest.
func (c *Client) TrashVolume(ctx context.Context, v *v1alpha1.PlinthVolume, until metav1.Time) error {
	patch := map[string]any{
		"metadata": map[string]any{"uid": v.UID, "resourceVersion": v.ResourceVersion},
		"spec":     map[string]any{"retained": true, "trashedUntil": until},
	}
	return wrap(c.patch(ctx, volumes, v.Name, patch, &v1alpha1.PlinthVolume{}), "trashing PlinthVolume", v.Name)
}

// ExpireVolume is DeleteVolume of exactly this state of v, so that nothing is
// deleted that was undeleted or adopted a moment ago.
func (c *Client) ExpireVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	opts := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion}}
	err := c.rest.Delete().Resource(volumes).Name(v.Name).Body(opts).Do(ctx).Error()
	return wrap(ignoreGone(err), "deleting PlinthVolume", v.Name)
}

// DeleteVolume asks for the deletion of v, by name and UID. The object is
// gone only once its node has freed the bytes. An absent one is no error.
func (c *Client) DeleteVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	opts := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID}}
	err := c.rest.Delete().Resource(volumes).Name(v.Name).Body(opts).Do(ctx).Error()
	return wrap(ignoreGone(err), "deleting PlinthVolume", v.Name)
}

// UpdateVolumeStatus writes the status of v; Conflict if v is not the newest.
func (c *Client) UpdateVolumeStatus(ctx context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error) {
	out := &v1alpha1.PlinthVolume{}
	err := c.rest.Put().Resource(volumes).Name(v.Name).SubResource("status").Body(v).Do(ctx).Into(out)
	return out, wrap(err, "writing the status of PlinthVolume", v.Name)
}

// ReleaseVolume removes Plinth's finalizer from v; Conflict if v is not the
// newest. An absent object is no error.
func (c *Client) ReleaseVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error {
	err := c.patch(ctx, volumes, v.Name, release(v), &v1alpha1.PlinthVolume{})
	return wrap(ignoreGone(err), "releasing PlinthVolume", v.Name)
}

// release is the patch that removes Plinth's finalizer from exactly this state
// of an object.
func release(o metav1.Object) any {
	rest := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == v1alpha1.Finalizer })
	return map[string]any{"metadata": map[string]any{
		"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion(), "finalizers": rest,
	}}
}

// GetNode reads one PlinthNode from the API server itself.
func (c *Client) GetNode(ctx context.Context, name string) (*v1alpha1.PlinthNode, error) {
	out := &v1alpha1.PlinthNode{}
	err := c.rest.Get().Resource(nodes).Name(name).Do(ctx).Into(out)
	return out, wrap(err, "reading PlinthNode", name)
}

// CreateNode writes a new PlinthNode, without its status.
func (c *Client) CreateNode(ctx context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error) {
	out := &v1alpha1.PlinthNode{}
	err := c.rest.Post().Resource(nodes).Body(n).Do(ctx).Into(out)
	return out, wrap(err, "creating PlinthNode", n.Name)
}

// UpdateNodeStatus writes the status of n; Conflict if n is not the newest.
func (c *Client) UpdateNodeStatus(ctx context.Context, n *v1alpha1.PlinthNode) (*v1alpha1.PlinthNode, error) {
	out := &v1alpha1.PlinthNode{}
	err := c.rest.Put().Resource(nodes).Name(n.Name).SubResource("status").Body(n).Do(ctx).Into(out)
	return out, wrap(err, "writing the status of PlinthNode", n.Name)
}

// OwnNode makes owner the only owner of n.
func (c *Client) OwnNode(ctx context.Context, n *v1alpha1.PlinthNode, owner metav1.OwnerReference) error {
	patch := map[string]any{"metadata": map[string]any{
		"uid": n.UID, "ownerReferences": []metav1.OwnerReference{owner},
	}}
	return wrap(c.patch(ctx, nodes, n.Name, patch, &v1alpha1.PlinthNode{}), "owning PlinthNode", n.Name)
}

// patch sends a JSON merge patch. A uid in it that is not the object's is
// answered with Conflict, so a patch never lands on a namesake.
func (c *Client) patch(ctx context.Context, kind, name string, patch any, out runtime.Object) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return c.rest.Patch(types.MergePatchType).Resource(kind).Name(name).Body(body).Do(ctx).Into(out)
}

func wrap(err error, doing, name string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, name, err)
}
