package ledger

import (
	"context"
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// ClusterID is what tells this cluster from others: the UID of the namespace
// kube-system, which lives as long as the cluster.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	ns, err := c.meta(ctx, "/api/v1/namespaces/", "kube-system")
	if err != nil {
		return "", wrap(err, "reading namespace", "kube-system")
	}
	return string(ns.UID), nil
}

// Withdrawn says whether PlinthVolumes or PlinthSnapshots are being taken out
// of the API: their CustomResourceDefinition is marked as deleted before its
// objects are, so whoever sees such an object marked learns why here.
func (c *Client) Withdrawn(ctx context.Context) (bool, error) {
	for _, kind := range []string{volumes, snapshots} {
		name := kind + "." + v1alpha1.GroupVersion.Group
		crd, err := c.meta(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/", name)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, wrap(err, "reading CustomResourceDefinition", name)
		}
		if crd.DeletionTimestamp != nil {
			return true, nil
		}
	}
	return false, nil
}

// onlyMeta asks for an object without its spec: a definition is long, and is
// read for each volume that is deleted.
const onlyMeta = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

// meta reads what every object has, of one that is not Plinth's.
func (c *Client) meta(ctx context.Context, path, name string) (metav1.PartialObjectMetadata, error) {
	var o metav1.PartialObjectMetadata
	result := c.rest.Get().AbsPath(path+name).SetHeader("Accept", onlyMeta).Do(ctx)
	if err := result.Error(); err != nil { // unlike Raw's, it says what the server said
		return o, err
	}
	body, err := result.Raw()
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(body, &o)
}
