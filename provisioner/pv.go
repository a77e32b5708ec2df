package provisioner

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// AnnotationVolume names the PlinthVolume behind a PersistentVolume.
const AnnotationVolume = v1alpha1.AnnotationVolume

// annotationProvisioner names who deletes a PersistentVolume and its volume;
// without it kube-controller-manager tries, and fails.
const annotationProvisioner = "pv.kubernetes.io/provisioned-by"

// volumeBehind is the name of the PlinthVolume behind a PersistentVolume of
// this driver; "" for any other.
func volumeBehind(driver string, pv *corev1.PersistentVolume) string {
	if csi := pv.Spec.CSI; csi != nil {
		if csi.Driver != driver {
			return ""
		}
		return csi.VolumeHandle
	}
	if pv.Spec.Local == nil && pv.Spec.HostPath == nil {
		return ""
	}
	if name := pv.Annotations[AnnotationVolume]; name != "" {
		return name
	}
	if pv.Annotations[annotationProvisioner] == driver {
		return pv.Name // made before there was that annotation
	}
	return ""
}

// persistentVolume is the PersistentVolume for a volume that is Ready. The
// library adds the claim's reference, the class and its own annotations.
func (o *order) persistentVolume(driver string, v *v1alpha1.PlinthVolume) (*corev1.PersistentVolume, error) {
	source, err := volumeSource(driver, v)
	if err != nil {
		return nil, err
	}
	mode := corev1.PersistentVolumeMode(v.Spec.VolumeMode)
	reclaim := corev1.PersistentVolumeReclaimDelete
	if o.sc.ReclaimPolicy != nil {
		reclaim = *o.sc.ReclaimPolicy
	}
	capacity := v.Spec.Size
	if v.Status.Size != nil && v.Status.Size.Cmp(capacity) > 0 {
		capacity = *v.Status.Size
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.name, Annotations: map[string]string{AnnotationVolume: v.Name}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: capacity},
			AccessModes:                   o.claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			MountOptions:                  o.sc.MountOptions,
			VolumeMode:                    &mode,
			NodeAffinity:                  nodeAffinity(driver, v),
			VolumeAttributesClassName:     o.attributesClass(),
			PersistentVolumeSource:        source,
		},
	}, nil
}

func volumeSource(driver string, v *v1alpha1.PlinthVolume) (corev1.PersistentVolumeSource, error) {
	var s corev1.PersistentVolumeSource
	switch v.Spec.VolumeType {
	case v1alpha1.VolumeTypeCSI:
		s.CSI = &corev1.CSIPersistentVolumeSource{
			Driver: driver, VolumeHandle: v.Name, FSType: v.Spec.FSType,
			// For people only: the node works from its records.
			VolumeAttributes: map[string]string{"pool": v.Spec.Pool, "node": v.Spec.NodeName},
		}
		return s, nil
	case v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath:
	default:
		return s, fmt.Errorf("%w: volume %s has the type %q", volume.ErrInvalid, v.Name, v.Spec.VolumeType)
	}
	if !path.IsAbs(v.Status.Path) {
		return s, fmt.Errorf("%w: node %s reports the path %q for volume %s", volume.ErrInvalid, v.Spec.NodeName, v.Status.Path, v.Name)
	}
	if v.Spec.VolumeType == v1alpha1.VolumeTypeLocal {
		s.Local = &corev1.LocalVolumeSource{Path: v.Status.Path}
		return s, nil
	}
	directory := corev1.HostPathDirectory
	s.HostPath = &corev1.HostPathVolumeSource{Path: v.Status.Path, Type: &directory}
	return s, nil
}

// nodeAffinity binds a volume to its node; nil where all nodes that have the
// pool reach it.
func nodeAffinity(driver string, v *v1alpha1.PlinthVolume) *corev1.VolumeNodeAffinity {
	if v.Spec.Shared {
		return nil
	}
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: TopologyKey(driver), Operator: corev1.NodeSelectorOpIn, Values: []string{v.Spec.NodeName},
			}},
		}},
	}}
}
