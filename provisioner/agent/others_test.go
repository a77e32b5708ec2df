package agent

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// TestExpandByPath: the filesystem of a volume that no driver mounts is grown by
// the agent.
func TestExpandByPath(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeLocal))
	untilVolume(t, m, "v", isReady)
	before := e.count("expose v")
	e.mu.Lock()
	e.fails["expose"] = volume.ErrBusy
	e.mu.Unlock()
	if _, err := m.ResizeVolume(t.Context(), v, resource.MustParse("2Gi")); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v.Status.Size.Value() == 2<<30 })
	if n := e.count("expose v") - before; n < 2 {
		t.Errorf("exposed %d times", n)
	}
}

// TestOthersAreLeftAlone: an object that was refused because its name is taken
// takes nothing with it when it goes.
func TestOthersAreLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name  string
		other volume.Volume
		err   error // of the deletion
	}{
		{"larger", volume.Volume{Spec: volume.Spec{ID: "v1", Size: 1 << 20, Mode: volume.Filesystem}, Name: "v1", Pool: "a"}, nil},
		{"of another pool", volume.Volume{Spec: volume.Spec{ID: "v1", Size: 1 << 30, Mode: volume.Filesystem}, Name: "v1", Pool: "b"}, nil},
		{"of another cluster", volume.Volume{Spec: volume.Spec{ID: "v1", Size: 1 << 30, Mode: volume.Filesystem}, Name: "v1", Pool: "a"}, volume.ErrExists},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			e.volumes["v1"] = c.other
			e.away["create"] = volume.ErrExists
			if c.err != nil {
				e.away["delete"] = c.err
			}
			start(t, m, e)
			v := add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
			untilVolume(t, m, "v1", reason(v1alpha1.ReasonInvalid))
			if err := m.DeleteVolume(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			untilVolume(t, m, "v1", isGone)
			if !e.has("v1") {
				t.Error("another's volume was deleted")
			}
		})
	}
}
