package provisioner

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// growBed is a bed with one bound claim of 1Gi on a volume of its type.
type growBed struct {
	*bed
	memory *ledger.Memory
	name   string // of the volume
}

func setUpGrowth(t *testing.T, volumeType v1alpha1.VolumeType, change func(*corev1.PersistentVolumeClaim)) *growBed {
	t.Helper()
	c := claim("data", "1Gi")
	c.Spec.VolumeName = volumeName(c.UID)
	c.Status.Phase = corev1.ClaimBound
	c.Status.Capacity = storage(resource.MustParse("1Gi"))
	if change != nil {
		change(c)
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: c.Spec.VolumeName, UID: "pv", Annotations: map[string]string{AnnotationVolume: c.Spec.VolumeName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: storage(resource.MustParse("1Gi")),
			ClaimRef: &corev1.ObjectReference{Namespace: c.Namespace, Name: c.Name, UID: c.UID},
		},
	}
	switch volumeType {
	case v1alpha1.VolumeTypeLocal:
		pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/mnt/p"}
	case v1alpha1.VolumeTypeHostPath:
		pv.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/mnt/p"}
	}
	m := &ledger.Memory{}
	v, err := m.CreateVolume(t.Context(), &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{Name: pv.Name},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: "n1", Pool: "p", Size: resource.MustParse("1Gi"), VolumeMode: "Filesystem", VolumeType: volumeType,
			ClaimName: c.Name, ClaimNamespace: c.Namespace, ClaimUID: string(c.UID),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	v.Status = v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeReady, Size: &v.Spec.Size, Path: "/mnt/p", ObservedGeneration: v.Generation}
	if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	return &growBed{bed: setUpWhole(t, m, c, pv), memory: m, name: pv.Name}
}

// node grows volumes up to a limit, and refuses beyond it.
func (b *growBed) node(limit string) {
	w, err := cache.ToWatcherWithContext(b.memory.WatchVolumes("n1")).WatchWithContext(b.t.Context(), metav1.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	room := resource.MustParse(limit)
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range w.ResultChan() {
			v, ok := e.Object.(*v1alpha1.PlinthVolume)
			if !ok || e.Type == watch.Deleted || v.Status.Size == nil || v.Spec.Size.Cmp(*v.Status.Size) <= 0 || v.Status.ObservedGeneration == v.Generation {
				continue
			}
			v = v.DeepCopy()
			v.Status.ObservedGeneration = v.Generation
			if v.Spec.Size.Cmp(room) > 0 {
				v.Status.Reason, v.Status.Message = v1alpha1.ReasonNoCapacity, "the pool is full"
			} else {
				v.Status.Size, v.Status.Reason, v.Status.Message = &v.Spec.Size, "", ""
			}
			_, _ = b.memory.UpdateVolumeStatus(context.Background(), v) // a conflict comes round again
		}
	})
	b.t.Cleanup(func() { w.Stop(); wg.Wait() })
}

// ask changes what the claim asks for.
func (b *growBed) ask(size string) {
	b.t.Helper()
	claims := b.client.CoreV1().PersistentVolumeClaims("default")
	c, err := claims.Get(b.t.Context(), "data", metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	c.Spec.Resources.Requests = storage(resource.MustParse(size))
	if _, err := claims.Update(b.t.Context(), c, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// await waits until the claim is as wanted.
func (b *growBed) await(what string, done func(*corev1.PersistentVolumeClaim) bool) *corev1.PersistentVolumeClaim {
	b.t.Helper()
	seen := make(chan *corev1.PersistentVolumeClaim, 100)
	h, err := b.claims.AddEventHandler(everyChange(func(o any) { seen <- o.(*corev1.PersistentVolumeClaim) }))
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.claims.RemoveEventHandler(h)
	late := time.After(20 * time.Second)
	var last *corev1.PersistentVolumeClaim
	for {
		select {
		case last = <-seen:
			if done(last) {
				return last
			}
		case <-late:
			b.t.Fatalf("the claim is not %s: %+v", what, last)
		}
	}
}

func has(size string) func(*corev1.PersistentVolumeClaim) bool {
	want := resource.MustParse(size)
	return func(c *corev1.PersistentVolumeClaim) bool {
		_, now := sizes(c)
		return now.Cmp(want) == 0 && resizeStatus(c) == "" && len(c.Status.Conditions) == 0
	}
}

func isInfeasible(c *corev1.PersistentVolumeClaim) bool {
	return resizeStatus(c) == corev1.PersistentVolumeClaimControllerResizeInfeasible &&
		len(c.Status.Conditions) == 1 && c.Status.Conditions[0].Type == corev1.PersistentVolumeClaimControllerResizeError
}

func TestExpand(t *testing.T) {
	for _, volumeType := range []v1alpha1.VolumeType{v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath} {
		t.Run(string(volumeType), func(t *testing.T) {
			b := setUpGrowth(t, volumeType, nil)
			b.node("4Gi")
			b.ask("2Gi")
			b.await("grown to 2Gi", has("2Gi"))
			pv, err := b.client.CoreV1().PersistentVolumes().Get(t.Context(), b.name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := pv.Spec.Capacity[corev1.ResourceStorage]; got.String() != "2Gi" {
				t.Errorf("the PersistentVolume has %s", got.String())
			}
			// Too much is refused and taken back, and less than that succeeds.
			b.ask("8Gi")
			c := b.await("told that it is too much", isInfeasible)
			if begun := c.Status.AllocatedResources[corev1.ResourceStorage]; begun.String() != "8Gi" {
				t.Errorf("what was tried is %s", begun.String())
			}
			b.until(b.name, func(v *v1alpha1.PlinthVolume) bool { return v.Spec.Size.String() == "2Gi" })
			b.ask("3Gi")
			b.await("grown to 3Gi", has("3Gi"))
		})
	}
}

// A controller that ended between two writes goes on where it was.
func TestExpandAfterACut(t *testing.T) {
	cut := func(status corev1.ClaimResourceStatus, asked, begun string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests = storage(resource.MustParse(asked))
			c.Status.AllocatedResources = storage(resource.MustParse(begun))
			c.Status.AllocatedResourceStatuses = storage(status)
		}
	}
	const busy, failed = corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible
	for _, c := range []struct {
		name   string
		change func(*corev1.PersistentVolumeClaim)
		room   string
		done   func(*corev1.PersistentVolumeClaim) bool
	}{
		{"begun", cut(busy, "2Gi", "2Gi"), "4Gi", has("2Gi")},
		{"begun, and the user asks for less by now", cut(busy, "2Gi", "3Gi"), "4Gi", has("3Gi")},
		{"begun with too much, and the user asks for less by now", cut(busy, "2Gi", "8Gi"), "4Gi", has("2Gi")},
		{"begun with too much", cut(busy, "8Gi", "8Gi"), "4Gi", isInfeasible},
		{"refused, and there is room now", cut(failed, "2Gi", "2Gi"), "4Gi", has("2Gi")},
		{"refused, and the user asks for what it has", cut(failed, "1Gi", "8Gi"), "4Gi", has("1Gi")},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUpGrowth(t, v1alpha1.VolumeTypeLocal, c.change)
			b.node(c.room)
			b.await("settled", c.done)
		})
	}
}

// What is not ours is left to whose it is.
func TestExpandServes(t *testing.T) {
	size := resource.MustParse("1Gi")
	c := claim("data", "2Gi")
	v := &v1alpha1.PlinthVolume{Status: v1alpha1.PlinthVolumeStatus{Size: &size, Path: "/mnt/p"}}
	local := func(path string) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}
	}
	for _, x := range []struct {
		name   string
		source corev1.PersistentVolumeSource
		uid    string
		want   bool
	}{
		{"local", local("/mnt/p"), string(c.UID), true},
		{"local at another path", local("/mnt/q"), string(c.UID), false},
		{"of another claim", local("/mnt/p"), "other", false},
		{"csi", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: testDriver}}, string(c.UID), false},
	} {
		pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: x.source, ClaimRef: &corev1.ObjectReference{UID: types.UID(x.uid)},
		}}
		if got := serves(pv, c, v); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}
