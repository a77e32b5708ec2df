package provisioner

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// retainedOn adds a volume that its last claim has left.
func retainedOn(t *testing.T, m *ledger.Memory, change func(*v1alpha1.PlinthVolume)) {
	t.Helper()
	v := &v1alpha1.PlinthVolume{}
	v.Name, v.Finalizers = "old", []string{v1alpha1.Finalizer}
	v.Spec = v1alpha1.PlinthVolumeSpec{
		NodeName: "n1", Pool: "a", Size: resource.MustParse("2Gi"), VolumeMode: "Filesystem", VolumeType: v1alpha1.VolumeTypeCSI,
		ClaimNamespace: "default", ClaimName: "first", ClaimUID: "uid-first", Retained: true,
	}
	change(v)
	v, err := m.CreateVolume(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	// The phase follows once the volume is somebody's; the size is what counts before.
	v.Status = v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeReady, Size: &v.Spec.Size}
	if v.Spec.VolumeType != v1alpha1.VolumeTypeCSI {
		v.Status.Path = "/mnt/a/volumes/old"
	}
	if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

func TestAdopt(t *testing.T) {
	held := csiVolume("pvc-first", testDriver, "old")
	for _, c := range []struct {
		name   string
		volume func(*v1alpha1.PlinthVolume)
		claim  func(*corev1.PersistentVolumeClaim)
		class  map[string]string
		node   string
		pv     *corev1.PersistentVolume
		says   string // "" is adopted
	}{
		{name: "by its own namespace"},
		{name: "smaller claim", claim: func(c *corev1.PersistentVolumeClaim) { setSize(c, "512Mi") }},
		{name: "as large", claim: func(c *corev1.PersistentVolumeClaim) { setSize(c, "2Gi") }},
		{name: "its node chosen", node: "n1"},
		{name: "by a path", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.VolumeType = v1alpha1.VolumeTypeLocal }, class: map[string]string{"volumeType": "local"}},
		{name: "allowed namespace", volume: func(v *v1alpha1.PlinthVolume) {
			v.Spec.ClaimNamespace = "other"
			v.Annotations = map[string]string{AnnotationAdopters: "some, default"}
		}},
		{name: "larger claim", claim: func(c *corev1.PersistentVolumeClaim) { setSize(c, "3Gi") }, says: "expand the claim later"},
		{name: "another namespace's", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.ClaimNamespace = "other" }, says: AnnotationAdopters},
		{name: "in use", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.Retained = false }, says: "claim default/first has it"},
		{name: "released", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.ReleaseTo = "back" }, says: "released, to the directory back of pool a"},
		{name: "with a PersistentVolume", pv: held, says: "PersistentVolume pvc-first has it"},
		{name: "another type", class: map[string]string{"volumeType": "local"}, says: "volumeType csi"},
		{name: "another pool", class: map[string]string{"pool": "b"}, says: "in pool a"},
		{name: "not scrubbed as promised", class: map[string]string{"onDelete": "scrub"}, says: "made without onDelete: scrub"},
		{name: "not allocated as promised", class: map[string]string{"provisioning": "thick"}, says: "made without provisioning: thick"},
		{name: "out of the trash", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.TrashedUntil = ptr(metav1.NewTime(time.Now().Add(time.Hour))) }},
		{name: "another mode", claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) }, says: "volumeMode"},
		{name: "several nodes", claim: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, says: "several"},
		{name: "another node chosen", node: "n2", says: "is on node n1"},
		{name: "not there", claim: func(c *corev1.PersistentVolumeClaim) { c.Annotations[AnnotationAdopt] = "none" }, says: "not found"},
		{name: "a path for a name", claim: func(c *corev1.PersistentVolumeClaim) { c.Annotations[AnnotationAdopt] = "../old" }, says: "not a DNS label"},
		{name: "with a source", claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSourceRef = clones("x") }, says: "leave one of them out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &ledger.Memory{}
			reports(t, m, "n1", btrfs("a", "10Gi"))
			reports(t, m, "n2", btrfs("a", "10Gi"), btrfs("b", "10Gi"))
			if c.volume == nil {
				c.volume = func(*v1alpha1.PlinthVolume) {}
			}
			retainedOn(t, m, c.volume)
			one := claim("c", "1Gi")
			one.Annotations = map[string]string{AnnotationAdopt: "old"}
			if c.claim != nil {
				c.claim(one)
			}
			b := setUp(t, m, one, readyNode("n1"), readyNode("n2"))
			if c.pv != nil {
				if err := b.pvs.GetIndexer().Add(c.pv); err != nil {
					t.Fatal(err)
				}
			}
			pv, state, err := b.provision(one, class("sc", c.class), c.node)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v does not say %q", err, c.says)
				}
				if n := m.Writes("AssignVolume") + m.Writes("CreateVolume"); n != 1 {
					t.Errorf("%d writes", n)
				}
				return
			}
			if err != nil || state != controller.ProvisioningFinished {
				t.Fatal(state, err)
			}
			if pv.Name != "pvc-uid-c" || volumeBehind(testDriver, pv) != "old" {
				t.Errorf("PersistentVolume %+v", pv)
			}
			if pv.Spec.Capacity.Storage().String() != "2Gi" {
				t.Errorf("capacity %s", pv.Spec.Capacity.Storage())
			}
			v, err := m.GetVolume(t.Context(), "old")
			if err != nil || v.Spec.Retained || v.Spec.ClaimUID != "uid-c" || v.Spec.ClaimNamespace != "default" || v.Spec.ClaimName != "c" {
				t.Errorf("volume %+v, %v", v.Spec, err)
			}
			b.until("old", func(v *v1alpha1.PlinthVolume) bool { return v.Spec.ClaimUID == "uid-c" })
			if again, _, err := b.provision(one, class("sc", c.class), c.node); err != nil || again.Name != pv.Name {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func setSize(c *corev1.PersistentVolumeClaim, size string) {
	c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
}

// TestRetain: a volume whose PersistentVolume goes is retained, and is
// somebody's again once it is adopted.
func TestRetain(t *testing.T) {
	m := &ledger.Memory{}
	reports(t, m, "n1", btrfs("a", "10Gi"))
	retainedOn(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.Retained = false })
	b := setUp(t, m, readyNode("n1"), csiVolume("pvc-first", testDriver, "old"))
	if err := b.chores.do(t.Context(), chore{choreVolume, "old"}); err != nil || m.Writes("AssignVolume") != 0 {
		t.Fatalf("a volume with a PersistentVolume was given up: %v", err)
	}
	if err := b.pvs.GetIndexer().Delete(csiVolume("pvc-first", testDriver, "old")); err != nil {
		t.Fatal(err)
	}
	if err := b.chores.do(t.Context(), chore{choreVolume, "old"}); err != nil {
		t.Fatal(err)
	}
	v := b.until("old", func(v *v1alpha1.PlinthVolume) bool { return v.Spec.Retained })
	if v.Spec.ClaimName != "first" || v.DeletionTimestamp != nil {
		t.Errorf("volume %+v", v)
	}
}
