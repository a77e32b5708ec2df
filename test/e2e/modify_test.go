//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// withAttributes is what await wants of a claim whose volume has the
// attributes of a VolumeAttributesClass, with nothing else under way.
func withAttributes(class string) func(*corev1.PersistentVolumeClaim) error {
	return func(c *corev1.PersistentVolumeClaim) error {
		if has := c.Status.CurrentVolumeAttributesClassName; has == nil || *has != class || c.Status.ModifyVolumeStatus != nil {
			return fmt.Errorf("class %v, modification %+v", has, c.Status.ModifyVolumeStatus)
		}
		return bound(c)
	}
}

// TestVolumeAttributesClass: a claim is made with a VolumeAttributesClass and
// is moved to another. Attributes that its pool does not have (these have
// no project quotas) are infeasible, the claim says so, and goes on once it is
// moved back.
func TestVolumeAttributesClass(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	none := e.attributesClass(params{"inodeLimit": "0", "softLimit": "0%"})
	nothing := e.attributesClass(params{"inodeLimit": "0"})
	tight := e.attributesClass(params{"inodeLimit": "1000"})
	move := func(class string) {
		e.Helper()
		_, err := e.kube.CoreV1().PersistentVolumeClaims(e.ns).Patch(e.ctx, "data", types.MergePatchType,
			[]byte(`{"spec":{"volumeAttributesClassName":"`+class+`"}}`), metav1.PatchOptions{})
		e.must(err, "move the claim to another VolumeAttributesClass")
	}
	e.claim("data", e.class(params{"pool": e.pool("btrfs")}), "32Mi", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeAttributesClassName = &none
	})
	await(e, claims, "data", "made with its class", withAttributes(none))
	v := e.volumeOf("data")
	if has := v.pv.Spec.VolumeAttributesClassName; has == nil || *has != none {
		t.Errorf("the PersistentVolume has the class %v", has)
	}
	move(nothing)
	await(e, claims, "data", "moved to another class", withAttributes(nothing))

	move(tight)
	await(e, claims, "data", "infeasible", func(c *corev1.PersistentVolumeClaim) error {
		if s := c.Status.ModifyVolumeStatus; s == nil || s.Status != corev1.PersistentVolumeClaimModifyVolumeInfeasible || s.TargetVolumeAttributesClassName != tight {
			return fmt.Errorf("modification %+v", s)
		}
		return nil
	})
	e.awaitEvent(claims, "data", "VolumeModifyFailed", v.Spec.Pool, "no attributes", "project quotas")
	move(none)
	await(e, claims, "data", "moved back", withAttributes(none))
}
