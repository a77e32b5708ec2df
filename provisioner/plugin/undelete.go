package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Undelete takes a volume out of the trash: it is Retained then, until a claim
// adopts it or somebody deletes it. It may be repeated.
func (p *Plugin) Undelete(ctx context.Context, name string) error {
	v, err := p.volume(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case v.DeletionTimestamp != nil:
		return refuse("volume %s is being deleted: its time in the trash is over, or somebody ended it, and its bytes cannot be had back", v.Name)
	case v.Spec.TrashedUntil == nil && !v.Spec.Retained:
		return refuse("volume %s is %s and not in the trash; `kubectl plinth list --phase Trashed` shows those that are", v.Name, phase(v))
	case v.Spec.TrashedUntil == nil:
		_, err = fmt.Fprintf(p.Out, "plinthvolume/%s is not in the trash, and kept\n", v.Name)
		return err
	}
	if err := p.patchSpec(ctx, v, map[string]any{"trashedUntil": nil}); err != nil {
		return fmt.Errorf("taking volume %s out of the trash: %w", v.Name, err)
	}
	_, err = fmt.Fprintf(p.Out, `plinthvolume/%[1]s undeleted; it is kept until it is deleted
a claim takes it: kubectl plinth adopt %[1]s --claim %[2]s/NAME
`, v.Name, cmp.Or(v.Spec.ClaimNamespace, "NAMESPACE"))
	return err
}

// patchSpec changes fields of exactly the volume that was read: if anybody has
// changed it since, it fails, and the caller is to look again.
func (p *Plugin) patchSpec(ctx context.Context, v *v1alpha1.PlinthVolume, spec map[string]any) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": v.UID, "resourceVersion": v.ResourceVersion},
		"spec":     spec,
	})
	if err != nil {
		return err
	}
	_, err = p.Client.Resource(volumes).Patch(ctx, v.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
