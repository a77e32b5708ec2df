package provisioner

import (
	"errors"
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func attributesClass(name, driver string, parameters map[string]string) *storagev1.VolumeAttributesClass {
	return &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: driver, Parameters: parameters}
}

// limiting is a pool with project quotas.
func limiting(name, available string) v1alpha1.PoolStatus {
	p := btrfs(name, available)
	p.Backend, p.Abilities = "directory", []string{"Attributes"}
	return p
}

func TestClaimWithAttributes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		class *storagev1.VolumeAttributesClass
		pool  v1alpha1.PoolStatus
		sc    map[string]string
		says  string
	}{
		{name: "given", class: attributesClass("vac", testDriver, map[string]string{"inodeLimit": "7", "softLimit": "80%"}), pool: limiting("a", "9Gi")},
		{name: "none, which any pool has", class: attributesClass("vac", testDriver, map[string]string{"inodeLimit": "0"}), pool: btrfs("a", "9Gi")},
		{name: "no pool has them", class: attributesClass("vac", testDriver, map[string]string{"inodeLimit": "7"}), pool: btrfs("a", "9Gi"), says: "pool a (btrfs) has no inodeLimit and softLimit"},
		{name: "no class", pool: limiting("a", "9Gi"), says: "VolumeAttributesClass vac does not exist"},
		{name: "another driver's", class: attributesClass("vac", "other", nil), pool: limiting("a", "9Gi"), says: "is of driver other"},
		{name: "unknown key", class: attributesClass("vac", testDriver, map[string]string{"iops": "7"}), pool: limiting("a", "9Gi"), says: `"iops" cannot be changed`},
		{name: "wrong value", class: attributesClass("vac", testDriver, map[string]string{"softLimit": "much"}), pool: limiting("a", "9Gi"), says: "0% to 99%"},
		{name: "of a local volume", class: attributesClass("vac", testDriver, nil), pool: limiting("a", "9Gi"), sc: map[string]string{"volumeType": "local"}, says: "volumeType csi"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := claim("c", "1Gi")
			c.Spec.VolumeAttributesClassName = ptr("vac")
			m := &ledger.Memory{}
			b := setUp(t, m, readyNode("n1"), c)
			reports(t, m, "n1", tc.pool)
			(&fakeNode{name: "n1", answer: func(v *v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus {
				s := makes(v)
				s.Attributes = v.Spec.Attributes
				return s
			}}).run(t, m)
			b.seen(1)
			b.provisioner.lookup.attributes = func(name string) *storagev1.VolumeAttributesClass {
				if name != "vac" {
					return nil
				}
				return tc.class
			}
			pv, _, err := b.provision(c, class("sc", tc.sc), "")
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if pv.Spec.VolumeAttributesClassName == nil || *pv.Spec.VolumeAttributesClassName != "vac" {
				t.Errorf("PersistentVolume %+v", pv.Spec)
			}
			want, err := volume.Attributes{}.With(tc.class.Parameters)
			if v := b.until("pvc-uid-c", ready); err != nil || ledger.AttributesOf(v.Spec.Attributes) != want {
				t.Errorf("%+v, %v", v.Spec.Attributes, err)
			}
		})
	}
}

// TestAttributesClassComes: a claim whose VolumeAttributesClass is missing
// goes on when it is made; a cluster without that kind is served as well.
func TestAttributesClassComes(t *testing.T) {
	c := claim("c", "1Gi")
	c.Spec.VolumeAttributesClassName = ptr("vac")
	m := &ledger.Memory{}
	b := setUp(t, m, readyNode("n1"), c)
	if err := b.watchAttributes(t.Context()); err != nil || b.attributes.get("vac") != nil {
		t.Fatalf("where there is no such kind: %v", err)
	}
	b.client.Discovery().(*fakediscovery.FakeDiscovery).Resources = []*metav1.APIResourceList{
		{GroupVersion: "storage.k8s.io/v1", APIResources: []metav1.APIResource{{Name: "volumeattributesclasses"}}},
	}
	if err := b.watchAttributes(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := b.listen()
	if _, _, err := b.provision(c, class("sc", nil), ""); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Fatalf("%v", err)
	}
	if _, err := b.client.StorageV1().VolumeAttributesClasses().Create(t.Context(), attributesClass("vac", testDriver, nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if key := w.next(t); key != "uid-c" {
		t.Errorf("%s is woken", key)
	}
	if !cache.WaitForCacheSync(t.Context().Done(), func() bool { return b.attributes.get("vac") != nil }) {
		t.Error("the class is not there")
	}
}

func TestVolumesModify(t *testing.T) {
	m := &ledger.Memory{}
	v := made(t, m, "c", "n1")
	b := setUp(t, m)
	for _, tc := range []struct {
		to      volume.Attributes
		refuses bool
		is      error
	}{
		{to: volume.Attributes{Inodes: 7}},
		{to: volume.Attributes{Inodes: 9, SoftLimit: 80}, refuses: true, is: volume.ErrUnsupported},
		{to: volume.Attributes{Inodes: 9, SoftLimit: 80}, refuses: true, is: volume.ErrUnsupported},
		{to: volume.Attributes{}},
	} {
		done := make(chan error, 1)
		go func() {
			got, err := b.volumes.Modify(t.Context(), volume.ID(v.Name), tc.to)
			if err == nil && got.Attributes != tc.to {
				err = errors.New("not as asked")
			}
			done <- err
		}()
		now := b.until(v.Name, func(v *v1alpha1.PlinthVolume) bool {
			return ledger.AttributesOf(v.Spec.Attributes) == tc.to && v.Status.ObservedGeneration < v.Generation
		}).DeepCopy()
		now.Status.ObservedGeneration = now.Generation
		if now.Status.AttributesReason, now.Status.AttributesMessage = "", ""; tc.refuses {
			now.Status.AttributesReason, now.Status.AttributesMessage = v1alpha1.ReasonUnsupported, "no attributes there"
		} else {
			now.Status.Attributes = ledger.AttributesIn(tc.to)
		}
		if _, err := m.UpdateVolumeStatus(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, tc.is) {
			t.Fatalf("to %+v: %v, want %v", tc.to, err, tc.is)
		}
		if now, err := m.GetVolume(t.Context(), v.Name); err != nil || ledger.AttributesOf(now.Spec.Attributes) != ledger.AttributesOf(now.Status.Attributes) {
			t.Fatalf("the intent is left as %+v, %v", now.Spec.Attributes, err)
		}
	}
	if _, err := b.volumes.Modify(t.Context(), "x", volume.Attributes{}); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := b.volumes.Modify(t.Context(), volume.ID(v.Name), volume.Attributes{SoftLimit: 100}); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("impossible: %v", err)
	}
}
