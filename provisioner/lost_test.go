package provisioner

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// A PersistentVolume waits for a node that is silent, and no longer once its
// Node is deleted; the PlinthVolume stays, marked, for the node's return.
func TestNodeDeclaredGone(t *testing.T) {
	m := &ledger.Memory{}
	made(t, m, "c", "n1")
	b := setUp(t, m, readyNode("n1"))
	w := b.listen()
	b.provisioner.patience = 0
	pv := csiVolume("pvc-uid-c", testDriver, "pvc-uid-c")
	var ignored *controller.IgnoredError
	if err := b.provisioner.Delete(t.Context(), pv); !errors.As(err, &ignored) {
		t.Fatalf("deleted on a silent node: %v", err)
	}
	if err := b.client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if key := w.next(t); key != pv.Name {
		t.Fatalf("woken: %s", key)
	}
	if err := b.provisioner.Delete(t.Context(), pv); err != nil {
		t.Fatalf("deleted on a node that is gone: %v", err)
	}
	if v, err := m.GetVolume(t.Context(), "pvc-uid-c"); err != nil || v.DeletionTimestamp == nil {
		t.Errorf("its tombstone: %+v, %v", v, err)
	}
	b.volumes.callPatience = 0
	if err := b.Volumes().Delete(t.Context(), volume.ID("pvc-uid-c")); err != nil {
		t.Errorf("the CSI call: %v", err)
	}
}

// What is in a shared pool is not lost with the node that made it: another
// node that serves the pool takes it over, also to free it.
func TestSharedOutlivesItsNode(t *testing.T) {
	m := &ledger.Memory{}
	w, err := read(testDriver, "pvc-uid-c", claim("c", "1Gi"), class("sc", nil), "")
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.CreateVolume(t.Context(), w.intent(placement.Choice{Node: "n1", Pool: "s", Shared: true}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	reports(t, m, "n2", btrfs("s", "5Gi"))
	reports(t, m, "n3", sharedPool("s", "5Gi"))
	b := setUp(t, m, claim("c", "1Gi"), readyNode("n1"), readyNode("n2"), readyNode("n3"))
	b.seen(2)
	go b.chores.run(t.Context())
	if err := b.client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	v = b.until(v.Name, func(v *v1alpha1.PlinthVolume) bool { return v.Spec.NodeName != "n1" })
	if v.Spec.NodeName != "n3" {
		t.Errorf("it went to %s, which has no such shared pool", v.Spec.NodeName)
	}
	if b.provisioner.lost(v) {
		t.Error("a volume of a shared pool is lost")
	}
}
