package provisioner

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

func TestPersistentVolume(t *testing.T) {
	retain := corev1.PersistentVolumeReclaimRetain
	for _, tc := range []struct {
		name   string
		spec   v1alpha1.PlinthVolumeSpec
		path   string
		size   string // that the node reports
		retain bool
		source corev1.PersistentVolumeSource
		node   string // that it is bound to
		cap    string
		fails  bool
	}{
		{
			name: "csi", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "csi", FSType: "ext4"}, size: "1Gi", node: "n1", cap: "1Gi",
			source: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: testDriver, VolumeHandle: "pvc-1", FSType: "ext4", VolumeAttributes: map[string]string{"pool": "fast", "node": "n1"},
			}},
		},
		{
			name: "shared", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "csi", Shared: true}, size: "1Gi", cap: "1Gi",
			source: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: testDriver, VolumeHandle: "pvc-1", VolumeAttributes: map[string]string{"pool": "fast", "node": "n1"},
			}},
		},
		{
			name: "local", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "local"}, path: "/p/volumes/pvc-1", size: "2Gi", node: "n1", cap: "2Gi",
			source: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/p/volumes/pvc-1"}},
		},
		{
			name: "hostPath", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "hostPath"}, path: "/p/volumes/pvc-1", size: "1Gi", node: "n1", cap: "1Gi", retain: true,
			source: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/p/volumes/pvc-1", Type: ptr(corev1.HostPathDirectory)}},
		},
		{name: "no path", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "local"}, fails: true},
		{name: "relative path", spec: v1alpha1.PlinthVolumeSpec{VolumeType: "hostPath"}, path: "etc", fails: true},
		{name: "no type", fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := class("sc", nil)
			sc.MountOptions = []string{"noatime"}
			if tc.retain {
				sc.ReclaimPolicy = &retain
			}
			o := order{name: "pvc-1", claim: claim("c", "1Gi"), sc: sc}
			v := &v1alpha1.PlinthVolume{Spec: tc.spec, Status: v1alpha1.PlinthVolumeStatus{Path: tc.path}}
			v.Name, v.Spec.NodeName, v.Spec.Pool, v.Spec.VolumeMode = "pvc-1", "n1", "fast", "Filesystem"
			v.Spec.Size = resource.MustParse("1Gi")
			if tc.size != "" {
				v.Status.Size = ptr(resource.MustParse(tc.size))
			}
			pv, err := o.persistentVolume(testDriver, v)
			if (err != nil) != tc.fails {
				t.Fatalf("error %v", err)
			}
			if tc.fails {
				return
			}
			if !reflect.DeepEqual(pv.Spec.PersistentVolumeSource, tc.source) {
				t.Errorf("source %+v", pv.Spec.PersistentVolumeSource)
			}
			if got := pv.Spec.Capacity[corev1.ResourceStorage]; got.Cmp(resource.MustParse(tc.cap)) != 0 {
				t.Errorf("capacity %s", got.String())
			}
			if want := map[bool]corev1.PersistentVolumeReclaimPolicy{true: retain, false: corev1.PersistentVolumeReclaimDelete}[tc.retain]; pv.Spec.PersistentVolumeReclaimPolicy != want {
				t.Errorf("reclaim policy %s", pv.Spec.PersistentVolumeReclaimPolicy)
			}
			var node string
			if a := pv.Spec.NodeAffinity; a != nil {
				e := a.Required.NodeSelectorTerms[0].MatchExpressions[0]
				if e.Key != testDriver+"/node" || e.Operator != corev1.NodeSelectorOpIn {
					t.Errorf("affinity %+v", e)
				}
				node = e.Values[0]
			}
			if node != tc.node {
				t.Errorf("bound to node %q, want %q", node, tc.node)
			}
			if pv.Name != "pvc-1" || *pv.Spec.VolumeMode != corev1.PersistentVolumeFilesystem || pv.Spec.AccessModes[0] != corev1.ReadWriteOnce || pv.Spec.MountOptions[0] != "noatime" {
				t.Errorf("%+v", pv.Spec)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }
