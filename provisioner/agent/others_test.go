package agent

import (
	"errors"
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

// A node that comes back after it was declared gone frees what was deleted
// meanwhile before it offers anything.
func TestBury(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	_, stop := start(t, m, e)
	for _, name := range []string{"dead", "living"} {
		add(t, m, intent(name, v1alpha1.VolumeTypeCSI))
		untilVolume(t, m, name, isReady)
	}
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n != nil })
	stop()
	v, err := m.GetVolume(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	m.DeleteNode("n1")
	e.mu.Lock()
	e.fails["delete"] = errors.New("busy") // the queue has it, too
	e.mu.Unlock()
	start(t, m, e)
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n != nil })
	if e.count("delete dead") == 0 {
		t.Error("the node was published before anything of what was deleted was freed")
	}
	untilVolume(t, m, "dead", isGone)
	if e.has("dead") || !e.has("living") {
		t.Errorf("there is of the dead %t, of the living %t", e.has("dead"), e.has("living"))
	}
}
