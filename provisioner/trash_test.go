package provisioner

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func TestTrashParameters(t *testing.T) {
	for _, tc := range []struct {
		parameters map[string]string
		keep       time.Duration
		says       string
	}{
		{parameters: map[string]string{"onDelete": "trash", "trashKeep": "7d"}, keep: 7 * 24 * time.Hour},
		{parameters: map[string]string{"onDelete": "delete"}},
		{parameters: map[string]string{"onDelete": "trash"}, says: "needs trashKeep"},
		{parameters: map[string]string{"trashKeep": "7d"}, says: "onDelete: trash alone"},
		{parameters: map[string]string{"onDelete": "scrub", "trashKeep": "7d"}, says: "onDelete: trash alone"},
		{parameters: map[string]string{"onDelete": "trash", "trashKeep": "soon"}, says: "24h, 7d or 1d12h"},
		{parameters: map[string]string{"onDelete": "burn"}, says: "delete, scrub, trash"},
	} {
		c, err := ParseClass(class("c", tc.parameters))
		if tc.says == "" && (err != nil || c.Trash != tc.keep) || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%v: %+v, %v", tc.parameters, c, err)
		}
	}
}

// inTrash writes a volume that its node has made, and deletes it.
func inTrash(t *testing.T, m *ledger.Memory, keep time.Duration) *bed {
	t.Helper()
	v := made(t, m, "c", "n1")
	_, err := m.AssignVolume(t.Context(), v, ledger.Holder{Namespace: "default", Name: "c", UID: "uid-c", Class: "sc", TrashKeep: &metav1.Duration{Duration: keep}})
	if err != nil {
		t.Fatal(err)
	}
	b := setUp(t, m)
	pv := csiVolume("pvc-uid-c", testDriver, "pvc-uid-c")
	for range 2 { // the library may ask again
		if err := b.provisioner.Delete(t.Context(), pv); err != nil {
			t.Fatal(err)
		}
		v = b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v != nil && v.Spec.TrashedUntil != nil })
		left := time.Until(v.Spec.TrashedUntil.Time)
		if !v.Spec.Retained || v.DeletionTimestamp != nil || left > keep+2*time.Second {
			t.Fatalf("%+v, for %v", v.Spec, left)
		}
	}
	return b
}

// serveTrash runs the trash of a controller until the returned function is called.
func (b *bed) serveTrash() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.trash.run(ctx) }()
	return func() { cancel(); <-ended }
}

func TestTrashExpires(t *testing.T) {
	m := &ledger.Memory{}
	(&fakeNode{name: "n1", answer: silent}).run(t, m)
	b := inTrash(t, m, time.Second)
	// Another process than the one that put it there.
	again := setUp(t, m)
	defer again.serveTrash()()
	b.until("pvc-uid-c", gone)
	if n := m.Writes("DeleteVolume"); n != 0 {
		t.Errorf("deleted %d times whatever its state", n)
	}
}

func TestUndelete(t *testing.T) {
	m := &ledger.Memory{}
	b := inTrash(t, m, time.Hour)
	defer b.serveTrash()()
	v, err := m.GetVolume(t.Context(), "pvc-uid-c")
	if err != nil {
		t.Fatal(err)
	}
	// Taken out of the trash, and its time over: it stays.
	_, err = m.AssignVolume(t.Context(), v, ledger.Holder{Namespace: "default", Name: "c", UID: "uid-c", Retained: true})
	if err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v.Spec.TrashedUntil == nil })
	// Its PersistentVolume, which was not gone yet, does not throw it away again.
	if err := b.provisioner.Delete(t.Context(), csiVolume(v.Name, testDriver, v.Name)); err != nil {
		t.Fatal(err)
	}
	now, err := m.GetVolume(t.Context(), v.Name)
	if err != nil || now.Spec.TrashedUntil != nil {
		t.Fatalf("thrown away again: %+v, %v", now, err)
	}
	// A deletion that has not heard of it is refused.
	if err := m.ExpireVolume(t.Context(), v); !apierrors.IsConflict(err) {
		t.Errorf("deleted as it was: %v", err)
	}
	// An administrator has it freed at once.
	if err := m.TrashVolume(t.Context(), now, metav1.Now()); err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v.DeletionTimestamp != nil })
}

// TestThrowAwayAdopted: what another claim has adopted is not thrown away with
// the PersistentVolume of the claim that had it, whatever the view still says.
func TestThrowAwayAdopted(t *testing.T) {
	for _, keep := range []*metav1.Duration{nil, {Duration: time.Hour}} {
		m := &ledger.Memory{}
		v := made(t, m, "c", "n1")
		if _, err := m.AssignVolume(t.Context(), v, ledger.Holder{Namespace: "default", Name: "heir", UID: "uid-heir", Class: "sc", TrashKeep: keep}); err != nil {
			t.Fatal(err)
		}
		pv := csiVolume(v.Name, testDriver, v.Name)
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "uid-c"}
		if err := setUp(t, m).provisioner.throwAway(t.Context(), pv, v.Name); err != nil {
			t.Fatal(err)
		}
		if now, err := m.GetVolume(t.Context(), v.Name); err != nil || now.Spec.TrashedUntil != nil || now.Spec.Retained {
			t.Errorf("keep %v: %+v, %v", keep, now, err)
		}
	}
}

// TestTrashBehind: one that was changed a moment ago is looked at again in a
// moment.
func TestTrashBehind(t *testing.T) {
	m := &ledger.Memory{Fail: func(op, name string) error {
		if op == "ExpireVolume" {
			return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("plinthvolumes").GroupResource(), name, nil)
		}
		return nil
	}}
	v := made(t, m, "c", "n1")
	if err := m.TrashVolume(t.Context(), v, metav1.Now()); err != nil {
		t.Fatal(err)
	}
	b := setUp(t, m)
	b.trash.look(v.Name)
	if next := b.trash.empty(t.Context()); next == 0 || next > firstRetry {
		t.Errorf("again after %v", next)
	}
}

// TestTrashInUse: what has a PersistentVolume again is not deleted before that
// is gone.
func TestTrashInUse(t *testing.T) {
	m := &ledger.Memory{}
	v := made(t, m, "c", "n1")
	if err := m.TrashVolume(t.Context(), v, metav1.Now()); err != nil {
		t.Fatal(err)
	}
	pv := csiVolume("by-hand", testDriver, v.Name)
	pv.Status.Phase = corev1.VolumeAvailable
	b := setUp(t, m, pv)
	b.trash.look(v.Name)
	b.trash.empty(t.Context())
	if v, _ = m.GetVolume(t.Context(), v.Name); v.DeletionTimestamp != nil {
		t.Fatal("a volume with a PersistentVolume was deleted")
	}
	defer b.serveTrash()()
	if err := b.client.CoreV1().PersistentVolumes().Delete(t.Context(), pv.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until(v.Name, func(v *v1alpha1.PlinthVolume) bool { return v.DeletionTimestamp != nil })
}
