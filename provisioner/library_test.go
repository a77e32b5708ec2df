package provisioner

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// The whole controller, with the library inside: a claim becomes a
// PersistentVolume, and a released one is deleted, over a node that is slower
// than a worker's patience both times.
func TestLibrary(t *testing.T) {
	m := &ledger.Memory{}
	c := claim("c", "1Gi")
	c.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": testDriver}
	sc := class("sc", map[string]string{"volumeType": "local"})
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b := setUpWhole(t, m, c, sc, readyNode("n1"))
	volumes := b.client.CoreV1().PersistentVolumes()
	w, err := volumes.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v != nil })
	stop := (&fakeNode{name: "n1", answer: makes, keeps: true}).run(t, m)
	pv := (<-w.ResultChan()).Object.(*corev1.PersistentVolume)
	if pv.Name != "pvc-uid-c" || pv.Spec.ClaimRef.UID != c.UID || pv.Spec.Local == nil || pv.Annotations["pv.kubernetes.io/provisioned-by"] != testDriver || len(pv.Finalizers) != 1 {
		t.Fatalf("%+v", pv)
	}
	pv.Status.Phase = corev1.VolumeReleased
	if _, err := volumes.UpdateStatus(t.Context(), pv, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("pvc-uid-c", func(v *v1alpha1.PlinthVolume) bool { return v.DeletionTimestamp != nil })
	stop()
	v, err := m.GetVolume(t.Context(), "pvc-uid-c")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ReleaseVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		if e.Type == watch.Deleted {
			return
		}
	}
}

// TestEndsInItsStart: a controller that is ended while it starts ends orderly.
func TestEndsInItsStart(t *testing.T) {
	stopped := &wakeable{SharedIndexInformer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.PersistentVolumeClaim{}, 0, cache.Indexers{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped.RunWithContext(ctx)
	if err := stopped.AddIndexers(cache.Indexers{"uid": cache.MetaNamespaceIndexFunc}); err != nil {
		t.Error(err)
	}
}
