package ledger

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

func intent(name, node string) *v1alpha1.PlinthVolume {
	return &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec:       v1alpha1.PlinthVolumeSpec{NodeName: node, Pool: "a", Size: resource.MustParse("1Gi")},
	}
}

// The ledger in memory keeps the API server's rules.
func TestMemoryRules(t *testing.T) {
	ctx, m := t.Context(), &Memory{}
	v, err := m.CreateVolume(ctx, intent("v", "n1"))
	if err != nil || v.UID == "" || v.Generation != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := m.CreateVolume(ctx, intent("v", "n1")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("twice: %v", err)
	}
	old := v.DeepCopy()
	v.Status.Size = &v.Spec.Size
	v.Spec.Pool = "b"
	if v, err = m.UpdateVolumeStatus(ctx, v); err != nil || v.Spec.Pool != "a" || v.Generation != 1 {
		t.Errorf("status: %+v, %v", v, err)
	}
	if _, err := m.UpdateVolumeStatus(ctx, old); !apierrors.IsConflict(err) {
		t.Errorf("an old one: %v", err)
	}
	if v, err = m.ResizeVolume(ctx, v, resource.MustParse("3Gi")); err != nil || v.Generation != 2 {
		t.Errorf("resize: %+v, %v", v, err)
	}
	if v, err = m.ResizeVolume(ctx, v, resource.MustParse("2Gi")); err != nil {
		t.Errorf("an intent taken back: %v", err)
	}
	if _, err := m.ResizeVolume(ctx, v, resource.MustParse("1Mi")); err == nil {
		t.Error("a volume shrank")
	}
	other := v.DeepCopy()
	other.UID = "other"
	if err := m.DeleteVolume(ctx, other); !apierrors.IsConflict(err) {
		t.Errorf("a namesake: %v", err)
	}
	for range 2 {
		if err := m.DeleteVolume(ctx, v); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if v, err = m.GetVolume(ctx, "v"); err != nil || v.DeletionTimestamp == nil {
		t.Fatalf("the finalizer does not hold: %+v, %v", v, err)
	}
	if err := m.ReleaseVolume(ctx, v); err != nil {
		t.Errorf("release: %v", err)
	}
	if _, err := m.GetVolume(ctx, "v"); !apierrors.IsNotFound(err) {
		t.Errorf("after the release: %v", err)
	}
	if err := errors.Join(m.DeleteVolume(ctx, v), m.ReleaseVolume(ctx, v)); err != nil {
		t.Errorf("an absent one: %v", err)
	}
}

// A watch brings what changed since the list, of its node alone.
func TestMemoryWatch(t *testing.T) {
	ctx, m := t.Context(), &Memory{}
	lw := cache.ToListerWatcherWithContext(m.WatchVolumes("n1"))
	list, err := lw.ListWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*v1alpha1.PlinthVolume{intent("other", "n2"), intent("v", "n1")} {
		if _, err := m.CreateVolume(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	w, err := lw.WatchWithContext(ctx, metav1.ListOptions{ResourceVersion: list.(*v1alpha1.PlinthVolumeList).ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Object.(*v1alpha1.PlinthVolume).Name != "v" {
		t.Errorf("%+v", e)
	}
}

func TestView(t *testing.T) {
	m := &Memory{}
	v, err := NewView(m)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { v.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	if !cache.WaitForCacheSync(ctx.Done(), v.Synced) {
		t.Fatal("the view does not fill")
	}
	there := make(chan *v1alpha1.PlinthVolume)
	go func() {
		got, _ := v.Until(ctx, "v", func(v *v1alpha1.PlinthVolume) bool { return v != nil && v.Status.Phase == v1alpha1.VolumeReady })
		there <- got
	}()
	o, err := m.CreateVolume(ctx, intent("v", "n1"))
	if err != nil {
		t.Fatal(err)
	}
	o.Status.Phase = v1alpha1.VolumeReady
	if _, err := m.UpdateVolumeStatus(ctx, o); err != nil {
		t.Fatal(err)
	}
	if got := <-there; got == nil || got.Name != "v" {
		t.Fatalf("%+v", got)
	}
	if on := v.VolumesOn("n1"); len(on) != 1 || len(v.VolumesOn("n2")) != 0 || len(v.Volumes()) != 1 {
		t.Errorf("%+v", on)
	}
	short, stop := context.WithTimeout(ctx, time.Millisecond)
	defer stop()
	got, err := v.Until(short, "v", func(v *v1alpha1.PlinthVolume) bool { return v == nil })
	if !errors.Is(err, context.DeadlineExceeded) || got == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if len(v.waiting) != 0 {
		t.Errorf("%d waiters are left", len(v.waiting))
	}
}
