package agent

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func TestModify(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeCSI, func(v *v1alpha1.PlinthVolume) {
		v.Spec.Attributes = &v1alpha1.VolumeAttributes{InodeLimit: 5}
	}))
	has := func(inodes int64, soft int32) func(*v1alpha1.PlinthVolume) bool {
		return func(v *v1alpha1.PlinthVolume) bool {
			return isReady(v) && ledger.AttributesOf(v.Status.Attributes) == (volume.Attributes{Inodes: inodes, SoftLimit: int(soft)}) && v.Status.AttributesReason == ""
		}
	}
	modify := func(inodes int64, soft int32) {
		t.Helper()
		if _, err := m.ModifyVolume(t.Context(), v, v1alpha1.VolumeAttributes{InodeLimit: inodes, SoftLimit: soft}); err != nil {
			t.Fatal(err)
		}
	}
	untilVolume(t, m, "v", has(5, 0)) // as it is made
	modify(7, 80)
	untilVolume(t, m, "v", has(7, 80))
	modify(0, 0)
	untilVolume(t, m, "v", has(0, 0))

	// A pool without attributes refuses, and is not asked again; what else is
	// wanted of the volume is done all the same.
	e.mu.Lock()
	e.plain = true
	e.mu.Unlock()
	modify(9, 0)
	v = untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v.Status.AttributesReason == v1alpha1.ReasonUnsupported })
	if v.Status.ObservedGeneration != v.Generation || v.Status.Phase != v1alpha1.VolumeReady || v.Status.Reason != "" || v.Status.AttributesMessage == "" {
		t.Errorf("status %+v", v.Status)
	}
	asked := e.count("modify")
	if _, err := m.ResizeVolume(t.Context(), v, resource.MustParse("2Gi")); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v.Status.Size.Value() == 2<<30 })
	if n := e.count("modify"); n > asked+1 { // once more for the new intent
		t.Errorf("the pool was asked %d times", n)
	}
	modify(0, 0) // the intent is taken back
	untilVolume(t, m, "v", has(0, 0))
}

// What failed by a fault of the machine is tried again.
func TestModifyFails(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v", isReady)
	e.mu.Lock()
	e.fails["modify"] = volume.ErrBusy
	e.mu.Unlock()
	if _, err := m.ModifyVolume(t.Context(), v, v1alpha1.VolumeAttributes{SoftLimit: 50}); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool {
		return v.Status.Attributes != nil && v.Status.Attributes.SoftLimit == 50 && v.Status.AttributesReason == ""
	})
}
