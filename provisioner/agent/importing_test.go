package agent

import (
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// TestImport: an object that a person wrote is imported and is there for
// whoever adopts it.
func TestImport(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	add(t, m, intent("v", v1alpha1.VolumeTypeCSI, func(v *v1alpha1.PlinthVolume) { v.Spec.ImportFrom, v.Spec.Retained = "local-path/x", true }))
	untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v.Status.Phase == v1alpha1.VolumeRetained })
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := e.imports["v"]; got != "local-path/x" {
		t.Errorf("imported %q", got)
	}
}

// TestRelease: a retained volume is released once nothing is in the way any
// more, and the deletion of its object then deletes nothing.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  v1alpha1.VolumeType
		first error
	}{
		{"csi, mounted", v1alpha1.VolumeTypeCSI, volume.ErrInUse},
		{"hostPath, mounted", v1alpha1.VolumeTypeHostPath, volume.ErrInUse},
		{"to a place that is taken", v1alpha1.VolumeTypeCSI, volume.ErrExists},
		{"into a directory that is not there", v1alpha1.VolumeTypeCSI, volume.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			e.volumes["v"], e.exposed["v"], e.fails["release"] = volume.Volume{Pool: "a"}, true, c.first
			add(t, m, intent("v", c.kind, func(v *v1alpha1.PlinthVolume) {
				v.Spec.Retained, v.Spec.ReleaseTo = true, "back"
				v.Status = v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeRetained, Size: &v.Spec.Size}
			}))
			start(t, m, e)
			v := untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v.Status.Phase == v1alpha1.VolumeReleased })
			if v.Status.Path != "/pool/back" || v.Status.Reason != "" || e.has("v") || (c.kind != v1alpha1.VolumeTypeCSI && e.count("unexpose") == 0) {
				t.Errorf("%+v, there %t", v.Status, e.has("v"))
			}
			if err := m.DeleteVolume(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			untilVolume(t, m, "v", isGone)
			if n := e.count("release"); n != 2 {
				t.Errorf("released %d times", n)
			}
		})
	}
}
