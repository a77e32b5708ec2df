package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Adoption is a retained volume that a new claim is to have.
type Adoption struct {
	Volume           string
	Namespace, Claim string
	Class            string // "" is the class that the volume was made from
	Size             string // "" is all of it
	// AllowNamespace lets the claim's namespace have a volume of another.
	AllowNamespace bool
	// DryRun prints the claim and changes nothing.
	DryRun bool
	Output Output // of the claim; Table is a word of it, and YAML if it is only printed
}

// Adopt writes the claim that takes the volume. It may be repeated.
func (p *Plugin) Adopt(ctx context.Context, a Adoption) error {
	v, err := p.volume(ctx, a.Volume)
	if err != nil {
		return err
	}
	if done, err := p.adopted(ctx, a, v); done || err != nil {
		return err
	}
	if err := p.free(ctx, v, "adopted"); err != nil {
		return err
	}
	claim, err := p.claimFor(ctx, a, v)
	if err != nil {
		return err
	}
	if err := p.allow(ctx, a, v); err != nil {
		return err
	}
	u, err := unstructuredOf(claim)
	if err != nil {
		return err
	}
	if a.DryRun {
		return p.print(cmp.Or(a.Output, YAML), u.Object)
	}
	if _, err := p.Client.Resource(claims).Namespace(a.Namespace).Create(ctx, u, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the claim %s/%s: %w", a.Namespace, a.Claim, err)
	}
	if a.Output != Table {
		return p.print(a.Output, u.Object)
	}
	_, err = fmt.Fprintf(p.Out, "persistentvolumeclaim/%s created in namespace %s; it takes volume %s on node %s\n", a.Claim, a.Namespace, v.Name, v.Spec.NodeName)
	return err
}

// adopted looks at a claim of that name that is there already.
func (p *Plugin) adopted(ctx context.Context, a Adoption, v *v1alpha1.PlinthVolume) (bool, error) {
	claim, err := get[corev1.PersistentVolumeClaim](ctx, p.Client.Resource(claims).Namespace(a.Namespace), "claim", a.Claim)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case claim.Annotations[v1alpha1.AnnotationAdopt] != v.Name && claim.Spec.VolumeName != "":
		return false, refuse("the claim %s/%s is bound to %s already; name a claim that does not exist yet", a.Namespace, a.Claim, claim.Spec.VolumeName)
	case claim.Annotations[v1alpha1.AnnotationAdopt] != v.Name:
		return false, refuse("the claim %s/%s is there and asks for no volume by name; name another, or have it take this one: kubectl annotate pvc -n %s %s %s=%s", a.Namespace, a.Claim, a.Namespace, a.Claim, v1alpha1.AnnotationAdopt, v.Name)
	}
	_, err = fmt.Fprintf(p.Out, "persistentvolumeclaim/%s in namespace %s takes volume %s already\n", a.Claim, a.Namespace, v.Name)
	return true, err
}

// free refuses a volume that somebody has, so that it cannot be done with.
func (p *Plugin) free(ctx context.Context, v *v1alpha1.PlinthVolume, done string) error {
	behind, err := p.persistentVolumes(ctx)
	if err != nil {
		return err
	}
	switch pv := behind[v.Name]; {
	case v.DeletionTimestamp != nil:
		return refuse("volume %s is being deleted", v.Name)
	case v.Spec.ReleaseTo != "":
		return refuse("volume %s was released to %s of pool %s and is a plain directory; import that again", v.Name, v.Spec.ReleaseTo, v.Spec.Pool)
	case pv != "":
		return refuse("volume %s has the PersistentVolume %s; delete its claim, and that with reclaim policy Retain, first: kubectl patch pv %s -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'", v.Name, pv, pv)
	case !v.Spec.Retained || v.Status.Size == nil:
		return refuse("volume %s is %s and not Retained; `kubectl plinth list --phase Retained` shows those that can be %s", v.Name, phase(v), done)
	}
	return nil
}

// claimFor is the claim that takes v.
func (p *Plugin) claimFor(ctx context.Context, a Adoption, v *v1alpha1.PlinthVolume) (*corev1.PersistentVolumeClaim, error) {
	class := cmp.Or(a.Class, v.Spec.StorageClassName)
	if class == "" {
		return nil, refuse("volume %s was made from no StorageClass; say by --class which the claim is to have", v.Name)
	}
	if _, err := get[storagev1.StorageClass](ctx, p.Client.Resource(classes), "StorageClass", class); apierrors.IsNotFound(err) {
		return nil, refuse("there is no StorageClass %s; say by --class which the claim is to have: one of volumeType %s that allows pool %s", class, v.Spec.VolumeType, v.Spec.Pool)
	} else if err != nil {
		return nil, err
	}
	amount := *v.Status.Size
	if a.Size != "" {
		asked, err := resource.ParseQuantity(a.Size)
		if err != nil || asked.Sign() <= 0 {
			return nil, refuse("--size %q is no size; one looks like 10Gi", a.Size)
		}
		if asked.Cmp(amount) > 0 {
			return nil, refuse("volume %s has %s, and %s are asked for; adopt it with as much or less, and expand the claim then", v.Name, amount.String(), a.Size)
		}
		amount = asked
	}
	mode := corev1.PersistentVolumeMode(v.Spec.VolumeMode)
	claim := &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.Namespace, Name: a.Claim, Annotations: map[string]string{v1alpha1.AnnotationAdopt: v.Name},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, VolumeMode: &mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: amount}},
		},
	}
	for _, m := range v.Spec.AccessModes {
		claim.Spec.AccessModes = append(claim.Spec.AccessModes, corev1.PersistentVolumeAccessMode(m))
	}
	if len(claim.Spec.AccessModes) == 0 {
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	}
	return claim, nil
}

// allow lets the claim's namespace have the volume, if that has to be said and
// was asked for.
func (p *Plugin) allow(ctx context.Context, a Adoption, v *v1alpha1.PlinthVolume) error {
	var allowed []string
	for n := range strings.SplitSeq(v.Annotations[v1alpha1.AnnotationAdopters], ",") {
		if n = strings.TrimSpace(n); n != "" {
			allowed = append(allowed, n)
		}
	}
	switch {
	case v.Spec.ClaimNamespace == a.Namespace || slices.Contains(allowed, a.Namespace):
		return nil
	case !a.AllowNamespace:
		return refuse("volume %s was last of namespace %q, and its data is not for %s; --allow-namespace allows that", v.Name, v.Spec.ClaimNamespace, a.Namespace)
	}
	value := strings.Join(append(allowed, a.Namespace), ",")
	if a.DryRun {
		_, err := fmt.Fprintf(p.Err, "# first: kubectl annotate --overwrite plinthvolume %s %s=%s\n", v.Name, v1alpha1.AnnotationAdopters, value)
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": v.UID, "resourceVersion": v.ResourceVersion, "annotations": map[string]string{v1alpha1.AnnotationAdopters: value},
	}})
	if err != nil {
		return err
	}
	if _, err := p.Client.Resource(volumes).Patch(ctx, v.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("allowing namespace %s to adopt volume %s: %w", a.Namespace, v.Name, err)
	}
	return nil
}
