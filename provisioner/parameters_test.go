package provisioner

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

func TestParseClass(t *testing.T) {
	zone := []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
		{Key: "zone", Values: []string{"a", "b"}},
	}}}
	for _, tc := range []struct {
		name       string
		parameters map[string]string
		options    []string
		topologies []corev1.TopologySelectorTerm
		want       Class
		fault      []string // what the error must say
	}{
		{name: "nothing", want: Class{Type: v1alpha1.VolumeTypeCSI}},
		{
			name:       "everything",
			parameters: map[string]string{"pool": "fast, bulk,fast", "volumeType": "local", "csi.storage.k8s.io/fstype": "xfs"},
			want:       Class{Pools: []string{"fast", "bulk"}, Type: v1alpha1.VolumeTypeLocal, FSType: "xfs"},
		},
		{
			name:       "how volumes are made",
			parameters: map[string]string{"provisioning": "thick", "onDelete": "scrub", "mkfsOptions": "-i 8192", "mode": "2770", "owner": "1000:1001"},
			want: Class{Type: v1alpha1.VolumeTypeCSI, Make: volume.Spec{
				Thick: true, OnDelete: volume.Scrub, MkfsOptions: []string{"-i", "8192"}, Root: volume.Root{Mode: 0o2770, UID: 1000, GID: 1001},
			}},
		},
		{
			name: "topologies", topologies: zone,
			want: Class{Type: v1alpha1.VolumeTypeCSI, Topologies: []placement.Term{{"zone": {"a", "b"}}}},
		},
		{
			name: "path pattern", parameters: map[string]string{"pathPattern": "{namespace}/{claim}", "volumeType": "hostPath"},
			want: Class{Type: v1alpha1.VolumeTypeHostPath, Path: "{namespace}/{claim}"},
		},
		{name: "path pattern for csi", parameters: map[string]string{"pathPattern": "{claim}"}, fault: []string{"pathPattern goes with volumeType local and hostPath"}},
		{name: "unknown key", parameters: map[string]string{"pools": "fast"}, fault: []string{`unknown parameter "pools"`, "pool, volumeType, csi.storage.k8s.io/fstype, pathPattern"}},
		{name: "case matters", parameters: map[string]string{"Pool": "fast"}, fault: []string{`unknown parameter "Pool"`}},
		{name: "bad type", parameters: map[string]string{"volumeType": "hostpath"}, fault: []string{`"hostpath" is not one of csi, local, hostPath`}},
		{name: "bad filesystem", parameters: map[string]string{"csi.storage.k8s.io/fstype": "ntfs"}, fault: []string{`"ntfs" is not one of ext4, xfs`}},
		{name: "empty filesystem", parameters: map[string]string{"csi.storage.k8s.io/fstype": ""}, fault: []string{`"" is not one of`}},
		{name: "bad provisioning", parameters: map[string]string{"provisioning": "fat"}, fault: []string{`StorageClass c: parameter provisioning: "fat" is neither`}},
		{name: "bad owner", parameters: map[string]string{"owner": "root:root"}, fault: []string{`parameter owner: "root:root"`, "uid:gid"}},
		{name: "path as pool", parameters: map[string]string{"pool": "../etc"}, fault: []string{`"../etc" is not the name of a pool`}},
		{name: "empty pool", parameters: map[string]string{"pool": "fast,,bulk"}, fault: []string{`"" is not the name of a pool`}},
		{name: "all faults at once", parameters: map[string]string{"pool": "A", "type": "csi", "volumeType": "nfs"}, fault: []string{`"A"`, `"type"`, `"nfs"`}},
		{name: "mount options on hostPath", parameters: map[string]string{"volumeType": "hostPath"}, options: []string{"noatime"}, fault: []string{"mountOptions"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &storagev1.StorageClass{
				ObjectMeta: metav1.ObjectMeta{Name: "c"}, Parameters: tc.parameters,
				MountOptions: tc.options, AllowedTopologies: tc.topologies,
			}
			got, err := ParseClass(sc)
			if len(tc.fault) == 0 {
				tc.want.Name = "c"
				if err != nil || !reflect.DeepEqual(got, tc.want) {
					t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
				}
				return
			}
			if !errors.Is(err, volume.ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			for _, word := range append(tc.fault, "StorageClass c") {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q does not say %q", err, word)
				}
			}
		})
	}
}

func TestReadClaim(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	for _, tc := range []struct {
		name  string
		class map[string]string
		claim func(*corev1.PersistentVolumeClaim)
		fault string
	}{
		{name: "plain", claim: func(*corev1.PersistentVolumeClaim) {}},
		{name: "block over csi", claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block }},
		{
			name: "block over local", class: map[string]string{"volumeType": "local"},
			claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block },
			fault: "volumeMode Block cannot be volumeType local",
		},
		{
			name: "block over hostPath", class: map[string]string{"volumeType": "hostPath"},
			claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block },
			fault: "volumeMode Block cannot be volumeType hostPath",
		},
		{
			name: "nobody writes, over hostPath", class: map[string]string{"volumeType": "hostPath", "pool": "fast,all"},
			claim: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
			},
			fault: "accessMode ReadOnlyMany cannot be volumeType hostPath in pool fast or all",
		},
		{
			name: "nobody need write, over hostPath", class: map[string]string{"volumeType": "hostPath"},
			claim: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany}
			},
		},
		{
			name:  "selector",
			claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} },
			fault: "selector",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := claim("c", "1Gi")
			tc.claim(c)
			_, err := read(testDriver, "pvc-x", c, class("sc", tc.class), "")
			if tc.fault == "" && err != nil {
				t.Fatal(err)
			}
			if tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)) {
				t.Fatalf("error %v does not say %q", err, tc.fault)
			}
		})
	}
}
