package agent

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestRequestIsWhole: all that an object says of how its volume is made
// reaches the engine.
func TestRequestIsWhole(t *testing.T) {
	v := &v1alpha1.PlinthVolume{Spec: v1alpha1.PlinthVolumeSpec{
		Pool: "a", Size: resource.MustParse("1Mi"), VolumeMode: "Filesystem", FSType: "xfs",
		Thick: true, OnDelete: "scrub", MkfsOptions: []string{"-m", "reflink=0"},
		Root: &v1alpha1.VolumeRoot{Mode: 0o2770, UID: 1000, GID: 4294967294},
	}}
	v.Name = "v"
	want := volume.Spec{
		ID: "v", Size: 1 << 20, Mode: volume.Filesystem, FSType: "xfs", Thick: true, OnDelete: volume.Scrub,
		MkfsOptions: []string{"-m", "reflink=0"}, Root: volume.Root{Mode: 0o2770, UID: 1000, GID: 4294967294},
	}
	if got := request(v).Spec; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestMadePhase: what its object says of a volume that is there.
func TestMadePhase(t *testing.T) {
	now := metav1.Now()
	for want, spec := range map[v1alpha1.VolumePhase]v1alpha1.PlinthVolumeSpec{
		v1alpha1.VolumeReady:    {},
		v1alpha1.VolumeRetained: {Retained: true},
		v1alpha1.VolumeTrashed:  {Retained: true, TrashedUntil: &now},
	} {
		if got := madePhase(&v1alpha1.PlinthVolume{Spec: spec}); got != want {
			t.Errorf("%+v: %s", spec, got)
		}
	}
}
