package plugin

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// offering is a node with one pool of each kind, and one that is away.
func offering(name string) *v1alpha1.PlinthNode {
	n := &v1alpha1.PlinthNode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Pools = []v1alpha1.PoolStatus{
		{Name: "fast", Path: "/opt/local", Backend: "directory", State: "Ready"},
		{Name: "all", Path: "/mnt/all", Backend: "directory", State: "Ready", Shared: true},
		{Name: "bulk", Path: "/mnt/bulk", Backend: "btrfs", State: "Ready"},
		{Name: "away", Backend: "directory", State: "Unavailable", Message: "nothing is mounted at /mnt/away"},
	}
	return n
}

// leading is a PersistentVolume as others make them, for a node or for all.
func leading(to, node string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}
	pv.Spec.HostPath = &corev1.HostPathVolumeSource{Path: to}
	if node != "" {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	return pv
}

func TestImport(t *testing.T) {
	fine := Import{Volume: "shop-db", Node: "n1", Pool: "fast", From: "pvc-1_shop_db", Size: "10Gi", Type: "csi", Namespace: "shop"}
	local := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}
	local.Spec.Local = &corev1.LocalVolumeSource{Path: "/opt/local/pvc-1_shop_db"}
	for _, c := range []struct {
		name   string
		change func(*Import)
		there  runtime.Object
		says   string // an error; "" is imported
	}{
		{name: "below the pool"},
		{name: "by its whole path", change: func(i *Import) { i.From = "/opt/local/pvc-1_shop_db/" }},
		{name: "in a shared pool", change: func(i *Import) { i.Pool = "all" }},
		{name: "as hostPath", change: func(i *Import) { i.Type = "hostPath" }},
		{name: "with a PersistentVolume of another node", there: leading("/opt/local/pvc-1_shop_db", "n2")},
		{name: "with a PersistentVolume elsewhere", there: leading("/opt/local/pvc-2", "n1")},
		{name: "with a PersistentVolume", there: leading("/opt/local/pvc-1_shop_db/", "n1"), says: "kubectl patch pv theirs"},
		{name: "with a PersistentVolume of any node", there: leading("/opt/local/pvc-1_shop_db", ""), says: "kubectl patch pv theirs"},
		{name: "with a local PersistentVolume", there: local, says: "kubectl patch pv theirs"},
		{name: "with a volume of that name", there: kept(named("shop-db")), says: "another name"},
		{name: "no name", change: func(i *Import) { i.Volume = "Shop_DB" }, says: "small letters"},
		{name: "no type", change: func(i *Import) { i.Type = "nfs" }, says: "csi, local or hostPath"},
		{name: "no size", change: func(i *Import) { i.Size = "0" }, says: "10Gi"},
		{name: "no such node", change: func(i *Import) { i.Node = "n9" }, says: "kubectl plinth nodes"},
		{name: "no such pool", change: func(i *Import) { i.Pool = "slow" }, says: "kubectl plinth pools --node n1"},
		{name: "a pool that is away", change: func(i *Import) { i.Pool = "away" }, says: "nothing is mounted"},
		{name: "a pool without directories", change: func(i *Import) { i.Pool = "bulk" }, says: "backend directory"},
		{name: "outside of the pool", change: func(i *Import) { i.From = "/opt/locally/x" }, says: "not below /opt/local"},
		{name: "the pool itself", change: func(i *Import) { i.From = "/opt/local" }, says: "not below /opt/local"},
		{name: "a path that climbs", change: func(i *Import) { i.From = "../x" }, says: "segment"},
		{name: "a volume", change: func(i *Import) { i.From = "/opt/local/volumes/old" }, says: "Plinth's own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := []runtime.Object{offering("n1")}
			if c.there != nil {
				objects = append(objects, c.there)
			}
			b, i := setUp(t, objects...), fine
			if c.change != nil {
				c.change(&i)
			}
			err := b.Import(t.Context(), i)
			if refused(t, err, c.says) {
				return
			}
			v, err := b.volume(t.Context(), "shop-db")
			if err != nil {
				t.Fatal(err)
			}
			s := v.Spec
			if s.NodeName != "n1" || s.Pool != i.Pool || s.Shared != (i.Pool == "all") || s.ImportFrom == "" || strings.HasPrefix(s.ImportFrom, "/") || s.Size.String() != "10Gi" ||
				s.VolumeMode != "Filesystem" || string(s.VolumeType) != i.Type || !s.Retained || s.ClaimNamespace != "shop" {
				t.Errorf("%+v", s)
			}
			if got := b.out.String(); !strings.Contains(got, "adopt shop-db --claim shop/NAME") {
				t.Error(got)
			}
		})
	}
}

func TestRelease(t *testing.T) {
	deleted := metav1.NewTime(now)
	for _, c := range []struct {
		name   string
		volume func(*v1alpha1.PlinthVolume)
		to     string
		there  runtime.Object
		says   string // an error; "" is released
		writes int
	}{
		{name: "retained", writes: 1},
		{name: "by its whole path", to: "/opt/local/back/db", writes: 1},
		{name: "twice", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.ReleaseTo = "back/db" }},
		{name: "to two places", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.ReleaseTo = "back/x" }, says: "released already, to back/x"},
		{name: "from the trash", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.TrashedUntil = &deleted }, says: "kubectl plinth undelete old"},
		{name: "in use", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.Retained, v.Status.Phase = false, v1alpha1.VolumeReady }, says: "can be released"},
		{name: "with a PersistentVolume", there: behind("old"), says: "pv-of-old"},
		{name: "being deleted", volume: func(v *v1alpha1.PlinthVolume) {
			v.DeletionTimestamp, v.Finalizers = &deleted, []string{v1alpha1.Finalizer}
		}, says: "is being deleted"},
		{name: "of a pool without directories", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.Pool = "bulk" }, says: "backend directory"},
		{name: "into another volume", to: "volumes/x", says: "Plinth's own"},
		{name: "elsewhere", to: "/srv/db", says: "not below /opt/local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := kept()
			if c.volume != nil {
				c.volume(v)
			}
			objects := []runtime.Object{offering("n1"), v}
			if c.there != nil {
				objects = append(objects, c.there)
			}
			b, to := setUp(t, objects...), c.to
			if to == "" {
				to = "back/db"
			}
			err := b.Release(t.Context(), "old", to)
			if n := b.writes(); n != c.writes {
				t.Errorf("%d writes, want %d", n, c.writes)
			}
			if refused(t, err, c.says) {
				return
			}
			if v, err := b.volume(t.Context(), "old"); err != nil || v.Spec.ReleaseTo != "back/db" {
				t.Errorf("released to %q, %v", v.Spec.ReleaseTo, err)
			}
			if got := b.out.String(); !strings.Contains(got, "/opt/local/back/db on node n1") {
				t.Error(got)
			}
		})
	}
}
