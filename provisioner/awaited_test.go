package provisioner

import (
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// TestAwaited: a claim that waits for a volume or a claim is looked at when
// that changes, not when its back-off is over.
func TestAwaited(t *testing.T) {
	m := &ledger.Memory{}
	reports(t, m, "n1", btrfs("a", "10Gi"))
	retainedOn(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.Retained = false })
	adopts, copies, source := claim("adopts", "1Gi"), claim("copies", "1Gi"), claim("source", "1Gi")
	adopts.Annotations = map[string]string{AnnotationAdopt: "old"}
	copies.Spec.DataSourceRef = clones("source")
	held := csiVolume("pvc-first", testDriver, "old")
	b := setUp(t, m, adopts, copies, source, held, class("sc", nil), readyNode("n1"))
	w := b.listen()

	source.Status.Phase = corev1.ClaimBound
	if _, err := b.client.CoreV1().PersistentVolumeClaims("default").UpdateStatus(t.Context(), source, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.next(t); got != "uid-copies" {
		t.Errorf("%s was woken by the source", got)
	}
	if err := b.client.CoreV1().PersistentVolumes().Delete(t.Context(), held.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.next(t); got != "uid-adopts" {
		t.Errorf("%s was woken by the PersistentVolume", got)
	}
	if err := b.chores.do(t.Context(), chore{choreVolume, "old"}); err != nil {
		t.Fatal(err)
	}
	if got := w.next(t); got != "uid-adopts" {
		t.Errorf("%s was woken by the volume", got)
	}
}

// TestSteeredAtOnce: so is one that is to be steered.
func TestSteeredAtOnce(t *testing.T) {
	m := &ledger.Memory{}
	reports(t, m, "n1", btrfs("a", "10Gi"))
	retainedOn(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.Retained = false })
	adopts := claim("adopts", "1Gi")
	adopts.Annotations = map[string]string{AnnotationAdopt: "old"}
	b := prepare(t, m, adopts, delayedClass("sc", nil), readyNode("n1"), csiVolume("pvc-first", testDriver, "old"))
	never := workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](time.Hour, time.Hour)
	b.steering.queue = workqueue.NewTypedRateLimitingQueue(never)
	b.start()
	b.steering.claimChanged(adopts)
	w, err := b.client.CoreV1().PersistentVolumeClaims("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var wg sync.WaitGroup
	wg.Go(func() { b.steering.run(t.Context()) })
	wg.Go(func() { b.chores.run(t.Context()) })
	t.Cleanup(wg.Wait)
	<-b.events.Events // it was tried, and failed
	if err := b.client.CoreV1().PersistentVolumes().Delete(t.Context(), "pvc-first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		if c := e.Object.(*corev1.PersistentVolumeClaim); c.UID == types.UID("uid-adopts") && c.Annotations[selectedNode] == "n1" {
			return
		}
	}
}
