package provisioner

import (
	"reflect"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// TestHowAVolumeIsMade: what a class says of it is in the PlinthVolume, and is
// read back from there.
func TestHowAVolumeIsMade(t *testing.T) {
	m := &ledger.Memory{}
	b := setUp(t, m, readyNode("n1"), claim("data", "1Gi"))
	reports(t, m, "n1", image("a", "5Gi"))
	(&fakeNode{name: "n1", answer: makes}).run(t, m)
	b.seen(1)
	sc := class("sc", map[string]string{"provisioning": "thick", "mkfsOptions": "-i 8192", "mode": "0750", "owner": "7:8"})
	if _, _, err := b.provision(claim("data", "1Gi"), sc, ""); err != nil {
		t.Fatal(err)
	}
	v := b.until("pvc-uid-data", ready)
	if !v.Spec.Thick || !reflect.DeepEqual(v.Spec.Root, &v1alpha1.VolumeRoot{Mode: 0o750, UID: 7, GID: 8}) || v.Spec.OnDelete != "" {
		t.Errorf("%+v", v.Spec)
	}
	want := volume.Spec{Thick: true, MkfsOptions: []string{"-i", "8192"}, Root: volume.Root{Mode: 0o750, UID: 7, GID: 8}}
	if got := ledger.MadeAs(v.Spec); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// The same for the CSI service, which does not take one for the other.
	r := ask("csi", gi)
	r.Thick = true
	if _, err := b.volumes.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Thick = false
	if v, err := b.volumes.Create(t.Context(), r); err == nil {
		t.Errorf("a thick volume stands for a thin one: %+v", v)
	}
}
