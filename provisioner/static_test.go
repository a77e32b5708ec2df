package provisioner

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// written adds a volume as an administrator writes it: without a finalizer
// and for nobody's claim.
func written(t *testing.T, m *ledger.Memory, change ...func(*v1alpha1.PlinthVolume)) *v1alpha1.PlinthVolume {
	t.Helper()
	v := &v1alpha1.PlinthVolume{}
	v.Name = "shop"
	v.Spec = v1alpha1.PlinthVolumeSpec{
		NodeName: "n1", Pool: "a", Size: resource.MustParse("1Gi"), VolumeMode: "Filesystem", VolumeType: v1alpha1.VolumeTypeCSI,
	}
	for _, c := range change {
		c(v)
	}
	v, err := m.CreateVolume(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// onNode binds a PersistentVolume to a node by Plinth's own key.
func onNode(pv *corev1.PersistentVolume, node string) *corev1.PersistentVolume {
	pv.Spec.NodeAffinity = nodeAffinity(testDriver, &v1alpha1.PlinthVolume{Spec: v1alpha1.PlinthVolumeSpec{NodeName: node}})
	return pv
}

func labelled(name string) *corev1.Node {
	n := readyNode(name)
	n.Labels[TopologyKey(testDriver)] = name
	return n
}

// A volume written by hand gets its finalizer, is noted for the claim whose
// PersistentVolume names it, and is retained when that goes.
func TestStaticLife(t *testing.T) {
	m := &ledger.Memory{}
	reports(t, m, "n1", btrfs("a", "10Gi"))
	b := setUpWhole(t, m, labelled("n1"))
	written(t, m)
	b.until("shop", func(v *v1alpha1.PlinthVolume) bool { return v != nil && len(v.Finalizers) == 1 })
	v, err := m.GetVolume(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	v.Status = *makes(v)
	if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	pv := onNode(csiVolume("shop-pv", testDriver, "shop"), "n1")
	pv.Spec.StorageClassName = "by-hand"
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "uid-c"}
	pv.Status.Phase = corev1.VolumeBound
	pvs := b.client.CoreV1().PersistentVolumes()
	if _, err := pvs.Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("shop", func(v *v1alpha1.PlinthVolume) bool {
		return v.Spec.ClaimUID == "uid-c" && v.Spec.ClaimName == "c" && v.Spec.StorageClassName == "by-hand" && !v.Spec.Retained
	})
	if err := pvs.Delete(t.Context(), pv.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("shop", func(v *v1alpha1.PlinthVolume) bool { return v.Spec.Retained && v.Spec.ClaimNamespace == "default" })
	// A second one takes it out of the reach of those who adopt.
	again := onNode(csiVolume("shop-pv-2", testDriver, "shop"), "n1")
	if _, err := pvs.Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("shop", func(v *v1alpha1.PlinthVolume) bool { return !v.Spec.Retained && v.Spec.ClaimUID == "uid-c" })
}

// What contradicts the volume that a PersistentVolume names is told, and only that.
func TestMismatch(t *testing.T) {
	local := func(path string) *corev1.PersistentVolume {
		pv := onNode(localVolume("pv", "shop"), "n1")
		pv.Spec.Local.Path = path
		return pv
	}
	change := func(pv *corev1.PersistentVolume, do func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		do(pv)
		return pv
	}
	byHand := func() *corev1.PersistentVolume { return onNode(csiVolume("pv", testDriver, "shop"), "n1") }
	for _, c := range []struct {
		name string
		pv   *corev1.PersistentVolume
		kind v1alpha1.VolumeType
		says string // "" is in order
	}{
		{name: "csi", pv: byHand()},
		{name: "local", pv: local("/mnt/a/volumes/shop"), kind: "local"},
		{name: "by the host's name", pv: change(byHand(), func(pv *corev1.PersistentVolume) {
			r := &pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
			r.Key, r.Values = "zone", []string{"z-n1"}
		})},
		{name: "no such volume", pv: csiVolume("pv", testDriver, "shap"), says: "no PlinthVolume"},
		{name: "a path for a handle", pv: csiVolume("pv", testDriver, "../../etc"), says: "no PlinthVolume"},
		{name: "another driver's", pv: csiVolume("pv", "other", "shap")},
		{name: "another node", pv: onNode(csiVolume("pv", testDriver, "shop"), "n2"), says: "on node n1 alone"},
		{name: "any node", pv: csiVolume("pv", testDriver, "shop"), says: "on node n1 alone"},
		{name: "both nodes", pv: change(byHand(), func(pv *corev1.PersistentVolume) {
			r := &pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
			r.Values = []string{"n1", "n2"}
		}), says: "on node n1 alone"},
		{name: "another mode", pv: onNode(blockVolume("pv", "shop"), "n1"), says: "volumeMode is Block"},
		{name: "another type", pv: local("/mnt/a/volumes/shop"), says: "volumeType csi"},
		{name: "another path", pv: local("/mnt/a/volumes/other"), kind: "local", says: "/mnt/a/volumes/shop"},
		{name: "too large", pv: change(byHand(), func(pv *corev1.PersistentVolume) {
			pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
		}), says: "capacity is 2Gi"},
		{name: "from several nodes", pv: change(byHand(), func(pv *corev1.PersistentVolume) {
			pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}), says: "several"},
		{name: "deleted by nobody", pv: change(byHand(), func(pv *corev1.PersistentVolume) {
			pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		}), says: annotationProvisioner},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &ledger.Memory{}
			for _, n := range []string{"n1", "n2"} {
				reports(t, m, n, btrfs("a", "10Gi"))
			}
			v := written(t, m, func(v *v1alpha1.PlinthVolume) {
				v.Finalizers = []string{v1alpha1.Finalizer}
				if c.kind != "" {
					v.Spec.VolumeType = c.kind
				}
			})
			v.Status = *makes(v)
			if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			b := setUp(t, m, labelled("n1"), labelled("n2"), c.pv)
			b.chores.drain() // what came before the view was whole
			b.chores.persistentChanged(c.pv)
			todo := b.chores.drain()
			if err := b.chores.checkPersistent(t.Context(), "pv"); err != nil {
				t.Fatal(err)
			}
			if c.says == "" {
				if todo > 0 || len(b.events.Events) > 0 {
					t.Fatalf("%d to do, %d events", todo, len(b.events.Events))
				}
				return
			}
			if got := next(t, b.events.Events); !strings.Contains(got, c.says) || !strings.Contains(got, eventMismatch) || todo == 0 {
				t.Errorf("%d to do, event %q does not say %q", todo, got, c.says)
			}
		})
	}
}

// drain takes all that is to be done, and counts the PersistentVolumes.
func (c *chores) drain() (n int) {
	for c.queue.Len() > 0 {
		todo, _ := c.queue.Get()
		if todo.kind == chorePersistent {
			n++
		}
		c.queue.Done(todo)
	}
	return n
}

func next(t *testing.T, events chan string) string {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
		return ""
	}
}

// A volume on a node that is not there is told of.
func TestStaticNowhere(t *testing.T) {
	m := &ledger.Memory{}
	b := setUpWhole(t, m, readyNode("n1"))
	written(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.NodeName = "n9" })
	if got := next(t, b.events.Events); !strings.Contains(got, "no node n9") {
		t.Error(got)
	}
}

// TestThrownAway: between a volume's way into the trash and the end of its
// PersistentVolume that one names it still, and does not take it out again, nor
// one that was taken out meanwhile; one that a claim has does.
func TestThrownAway(t *testing.T) {
	until := metav1.NewTime(time.Now().Add(time.Hour))
	for _, c := range []struct {
		phase   corev1.PersistentVolumePhase
		trashed *metav1.Time
		kept    bool
	}{
		{corev1.VolumeReleased, &until, true},
		{corev1.VolumeReleased, nil, true},
		{corev1.VolumeBound, &until, false},
		{corev1.VolumeAvailable, nil, false},
	} {
		m := &ledger.Memory{}
		retainedOn(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.TrashedUntil = c.trashed })
		pv := csiVolume("pvc-first", testDriver, "old")
		pv.Status.Phase = c.phase
		b := setUp(t, m, pv, readyNode("n1"))
		if err := b.chores.do(t.Context(), chore{choreVolume, "old"}); err != nil {
			t.Fatal(err)
		}
		v, err := m.GetVolume(t.Context(), "old")
		if err != nil || v.Spec.Retained != c.kept || (v.Spec.TrashedUntil != nil) != (c.kept && c.trashed != nil) {
			t.Errorf("%+v: %+v, %v", c, v.Spec, err)
		}
	}
}
