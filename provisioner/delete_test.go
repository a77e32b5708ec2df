package provisioner

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// made writes a volume that its node has made, for the claim of that name.
func made(t *testing.T, m *ledger.Memory, claimName, node string) *v1alpha1.PlinthVolume {
	t.Helper()
	return madeAs(t, m, claimName, node, v1alpha1.VolumeTypeCSI)
}

func madeAs(t *testing.T, m *ledger.Memory, claimName, node string, kind v1alpha1.VolumeType) *v1alpha1.PlinthVolume {
	t.Helper()
	w, err := read(testDriver, "pvc-uid-"+claimName, claim(claimName, "1Gi"), class("sc", map[string]string{"volumeType": string(kind)}), "")
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.CreateVolume(t.Context(), w.intent(placement.Choice{Node: node, Pool: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	v.Status = *makes(v)
	if v, err = m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func csiVolume(name, driver, handle string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}
	return pv
}

// localVolume is a PersistentVolume over a path; behind names its volume where
// that is not the PersistentVolume's own name.
func localVolume(name, behind string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/mnt/a/volumes/" + name}
	pv.Annotations = map[string]string{annotationProvisioner: testDriver}
	if behind != "" {
		pv.Annotations[AnnotationVolume] = behind
	}
	return pv
}

func blockVolume(name, handle string) *corev1.PersistentVolume {
	pv := csiVolume(name, testDriver, handle)
	pv.Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock)
	return pv
}

// strange is a PersistentVolume over a path that is none of ours.
func strange(name string) *corev1.PersistentVolume {
	pv := localVolume(name, "")
	pv.Annotations = nil
	return pv
}

func TestDelete(t *testing.T) {
	for _, tc := range []struct {
		name    string
		pv      *corev1.PersistentVolume
		path    bool // the volume is for a path
		keeps   bool // the node does not free it
		is      error
		ignored bool
		gone    bool
	}{
		{name: "freed", pv: csiVolume("pvc-uid-c", testDriver, "pvc-uid-c"), gone: true},
		{name: "by path", pv: localVolume("pvc-uid-c", ""), path: true, gone: true},
		{name: "adopted, by path", pv: localVolume("pvc-uid-later", "pvc-uid-c"), path: true, gone: true},
		{name: "of another type", pv: localVolume("x", "pvc-uid-c"), is: volume.ErrInvalid},
		{name: "of another mode", pv: blockVolume("x", "pvc-uid-c"), is: volume.ErrInvalid},
		{name: "a stranger's, by chance of that name", pv: strange("pvc-uid-c"), ignored: true},
		{name: "absent", pv: csiVolume("x", testDriver, "x")},
		{name: "of another driver", pv: csiVolume("pvc-uid-c", "other", "pvc-uid-c"), ignored: true},
		{name: "slow", pv: csiVolume("pvc-uid-c", testDriver, "pvc-uid-c"), keeps: true, ignored: true},
		{name: "a path for a handle", pv: csiVolume("x", testDriver, "../../etc"), is: volume.ErrInvalid},
		{name: "the volume of another", pv: csiVolume("thief", testDriver, "pvc-uid-owned"), is: volume.ErrInUse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &ledger.Memory{}
			kind := v1alpha1.VolumeTypeCSI
			if tc.path {
				kind = v1alpha1.VolumeTypeLocal
			}
			madeAs(t, m, "c", "n1", kind)
			made(t, m, "owned", "n1")
			(&fakeNode{name: "n1", answer: silent, keeps: tc.keeps}).run(t, m)
			b := setUp(t, m, csiVolume("pvc-uid-owned", testDriver, "pvc-uid-owned"), readyNode("n1"))
			if tc.keeps {
				b.provisioner.patience = 0
			}
			err := b.provisioner.Delete(t.Context(), tc.pv)
			var ignored *controller.IgnoredError
			if got := errors.As(err, &ignored); got != tc.ignored {
				t.Fatalf("error %v", err)
			}
			if !tc.ignored && !errors.Is(err, tc.is) {
				t.Fatalf("error %v, want %v", err, tc.is)
			}
			if _, err := m.GetVolume(t.Context(), "pvc-uid-c"); apierrors.IsNotFound(err) != tc.gone {
				t.Errorf("the volume: %v", err)
			}
			if _, err := m.GetVolume(t.Context(), "pvc-uid-owned"); err != nil {
				t.Errorf("another's volume: %v", err)
			}
		})
	}
}

// The end of a volume that takes long to free wakes its PersistentVolume.
func TestDeleteSlowly(t *testing.T) {
	m := &ledger.Memory{}
	made(t, m, "c", "n1")
	b := setUp(t, m, readyNode("n1"))
	w := b.listen()
	b.provisioner.patience = 0
	pv := csiVolume("pvc-uid-c", testDriver, "pvc-uid-c")
	var ignored *controller.IgnoredError
	if err := b.provisioner.Delete(t.Context(), pv); !errors.As(err, &ignored) {
		t.Fatalf("error %v", err)
	}
	v, err := m.GetVolume(t.Context(), "pvc-uid-c")
	if err != nil || v.DeletionTimestamp == nil {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := m.ReleaseVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if key := w.next(t); key != "pvc-uid-c" {
		t.Fatalf("woken: %s", key)
	}
	if err := b.provisioner.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
}

// A claim that goes while its node makes the volume leaves nothing behind.
func TestClaimGoesWhileResting(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "1Gi"), class("sc", nil)
	b := setUp(t, m, c, sc, readyNode("n1"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b.seen(1)
	b.provisioner.patience = 0
	if _, _, err := b.provision(c, sc, ""); !rests(err) {
		t.Fatal(err)
	}
	made := b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v != nil }).DeepCopy()
	made.Status = *makes(made)
	if _, err := m.UpdateVolumeStatus(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-c", ready)
	go b.chores.run(t.Context())
	if err := b.client.CoreV1().PersistentVolumeClaims("default").Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v == nil || v.DeletionTimestamp != nil })
}

// What was never made is taken back when its claim is gone; what was made is kept.
func TestChores(t *testing.T) {
	m := &ledger.Memory{}
	for _, name := range []string{"never", "living"} {
		w, err := read(testDriver, "pvc-uid-"+name, claim(name, "1Gi"), class("sc", nil), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.CreateVolume(t.Context(), w.intent(placement.Choice{Node: "n1", Pool: "a"})); err != nil {
			t.Fatal(err)
		}
	}
	made(t, m, "made", "n1")
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b := setUp(t, m, claim("living", "1Gi"), readyNode("n1"))
	go b.chores.run(t.Context())
	b.until("pvc-uid-never", func(v *v1alpha1.PlinthVolume) bool { return v == nil || v.DeletionTimestamp != nil })
	for _, name := range []string{"living", "made"} {
		if v, err := m.GetVolume(t.Context(), "pvc-uid-"+name); err != nil || v.DeletionTimestamp != nil {
			t.Errorf("volume %s: %+v, %v", name, v, err)
		}
	}
	if err := b.client.CoreV1().PersistentVolumeClaims("default").Delete(t.Context(), "living", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-living", func(v *v1alpha1.PlinthVolume) bool { return v == nil || v.DeletionTimestamp != nil })
	if n, err := m.GetNode(t.Context(), "n1"); err != nil || len(n.OwnerReferences) != 1 || n.OwnerReferences[0].UID != "node-n1" {
		t.Errorf("%+v, %v", n, err)
	}
}
