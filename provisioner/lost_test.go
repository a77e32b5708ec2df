package provisioner

import (
	"context"
	"errors"
	"testing"
	"time"

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
	for name, shared := range map[string]bool{"in-the-pool": true, "on-the-node": false} {
		_, err := m.CreateSnapshot(t.Context(), &v1alpha1.PlinthSnapshot{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PlinthSnapshotSpec{NodeName: "n1", Pool: "s", Shared: shared, Volume: v.Name},
		})
		if err != nil {
			t.Fatal(err)
		}
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if s, err := b.view.UntilSnapshot(ctx, "in-the-pool", func(s *v1alpha1.PlinthSnapshot) bool { return s.Spec.NodeName == "n3" }); err != nil {
		t.Errorf("its snapshot: %+v, %v", s, err)
	}
	if s, err := m.GetSnapshot(t.Context(), "on-the-node"); err != nil || s.Spec.NodeName != "n1" {
		t.Errorf("a snapshot that is on the node alone: %+v, %v", s, err)
	}
}

// A volume that was to be made on a node that is declared gone is made on
// another one; what it has there is a tombstone, whose name is taken.
func TestUnmadeOnGoneNode(t *testing.T) {
	for _, tc := range []struct {
		name     string
		selected string
		answer   func(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus // what the node has said before
		again    bool                                                      // the machine comes back
	}{
		{name: "wherever", answer: silent},
		{name: "on the node of the scheduler's choice", selected: "n1", answer: silent},
		{name: "made and given to nobody", answer: makes},
		{name: "refused", answer: refuses(v1alpha1.ReasonUnsupported)},
		{name: "and the machine comes back", answer: silent, again: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &ledger.Memory{}
			c, sc := claim("c", "1Gi"), class("sc", nil)
			b := setUp(t, m, c, sc, readyNode("n1"), readyNode("n2"))
			reports(t, m, "n1", btrfs("a", "9Gi"))
			reports(t, m, "n2", btrfs("a", "5Gi"))
			b.seen(2)
			b.provisioner.patience = 0
			w := b.listen()
			if _, _, err := b.provision(c, sc, tc.selected); !rests(err) {
				t.Fatal(err)
			}
			first, err := m.GetVolume(t.Context(), "pvc-uid-c")
			if err != nil || first.Spec.NodeName != "n1" {
				t.Fatalf("%+v, %v", first, err)
			}
			status := tc.answer(first)
			if status != nil {
				first.Status = *status
				if _, err := m.UpdateVolumeStatus(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				w.next(t)
			}
			if err := b.client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if status == nil {
				if key := w.next(t); key != string(c.UID) {
					t.Fatalf("woken: %s", key)
				}
			}
			for !b.provisioner.lost(first) {
				<-b.stirred()
			}
			b.provisioner.patience = time.Minute
			(&fakeNode{name: "n2", answer: makes}).run(t, m)
			pv, state, err := b.provision(c, sc, tc.selected)
			if tc.selected != "" {
				if state != controller.ProvisioningReschedule {
					t.Fatalf("%s, %v", state, err)
				}
				pv, state, err = b.provision(c, sc, "n2")
			}
			if err != nil || state != controller.ProvisioningFinished || pv.Name != "pvc-uid-c" || pv.Spec.CSI.VolumeHandle != "pvc-uid-c-2" {
				t.Fatalf("%+v, %s, %v", pv, state, err)
			}
			if v, err := m.GetVolume(t.Context(), "pvc-uid-c-2"); err != nil || v.Spec.NodeName != "n2" {
				t.Errorf("%+v, %v", v, err)
			}
			first, err = m.GetVolume(t.Context(), "pvc-uid-c")
			if err != nil || first.DeletionTimestamp == nil {
				t.Fatalf("its tombstone: %+v, %v", first, err)
			}
			if tc.again { // and clears it away: the claim has the other one
				if err := m.ReleaseVolume(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				b.until("pvc-uid-c", gone)
				if pv, _, err := b.provision(c, sc, ""); err != nil || pv.Spec.CSI.VolumeHandle != "pvc-uid-c-2" {
					t.Errorf("%+v, %v", pv, err)
				}
			}
			if n := m.Writes("CreateVolume"); n != 2 {
				t.Errorf("%d volumes were written", n)
			}
		})
	}
}
