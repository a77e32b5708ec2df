package plugin

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

func TestUndelete(t *testing.T) {
	later := metav1.NewTime(now.Add(1))
	trashed := func(v *v1alpha1.PlinthVolume) { v.Spec.TrashedUntil, v.Status.Phase = &later, v1alpha1.VolumeTrashed }
	for _, c := range []struct {
		name   string
		volume func(*v1alpha1.PlinthVolume)
		says   string // what is printed, or the error of one that is refused
		writes int
		fails  bool
	}{
		{name: "in the trash", volume: trashed, says: "kubectl plinth adopt old --claim shop/NAME", writes: 1},
		{name: "of no namespace", volume: func(v *v1alpha1.PlinthVolume) { trashed(v); v.Spec.ClaimNamespace = "" }, says: "--claim NAMESPACE/NAME", writes: 1},
		{name: "twice", volume: func(*v1alpha1.PlinthVolume) {}, says: "not in the trash, and kept"},
		{name: "in use", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.Retained, v.Status.Phase = false, v1alpha1.VolumeReady },
			says: "is Ready and not in the trash; `kubectl plinth list --phase Trashed`", fails: true},
		{name: "being freed", volume: func(v *v1alpha1.PlinthVolume) {
			trashed(v)
			v.DeletionTimestamp, v.Finalizers = &later, []string{v1alpha1.Finalizer}
		}, says: "is being deleted", fails: true},
		{name: "not there", volume: named("other"), says: "kubectl plinth list", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, kept(c.volume))
			said := ""
			err := b.Undelete(t.Context(), "old")
			if err != nil {
				said = err.Error()
			}
			said += b.out.String()
			if (err != nil) != c.fails || !strings.Contains(said, c.says) || b.writes() != c.writes {
				t.Fatalf("%d writes; it says %q", b.writes(), said)
			}
			if c.fails {
				return
			}
			if v, err := b.volume(t.Context(), "old"); err != nil || v.Spec.TrashedUntil != nil || !v.Spec.Retained {
				t.Errorf("%+v, %v", v.Spec, err)
			}
		})
	}
}
