//go:build e2e

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ephemeral has the pod's claim written in the pod itself, for Kubernetes to
// make and to delete with the pod.
func ephemeral(class, size string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class,
				AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse(size)}},
			}},
		}}
	}
}

// TestGenericEphemeral: a volume whose claim is written in a pod is placed by
// the room there is, limited, and gone with the pod, for each volume type.
func TestGenericEphemeral(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			class := e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}, waiting)
			e.pod("pod", "", ephemeral(class, "64Mi"))
			p := await(e, pods, "pod", "ready", ready)
			v := e.volumeOf("pod-data")
			if claim := get[corev1.PersistentVolumeClaim](e, claims, "pod-data"); !metav1.IsControlledBy(claim, p) {
				t.Errorf("claim %s belongs to %v", claim.Name, claim.OwnerReferences)
			}
			if v.Spec.NodeName != p.Spec.NodeName {
				t.Errorf("the pod is on %s, its volume on %s", p.Spec.NodeName, v.Spec.NodeName)
			}
			e.mustSh("pod", "dd if=/dev/urandom of=/data/file bs=1M count=32 conv=fsync")
			if out, err := e.sh("pod", "dd if=/dev/urandom of=/data/more bs=1M count=64 conv=fsync"); err == nil {
				t.Errorf("96 MiB went onto a volume of 64 MiB: %s", out)
			}
			e.remove(pods, "pod")
			e.awaitGone(pods, "pod")
			e.awaitGone(claims, "pod-data")
			e.awaitFreed(v)
		})
	}
}
