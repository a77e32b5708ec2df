package provisioner

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

const testDriver = "csi.plinth.dev"

// bed is a controller over a ledger in memory and a fake API server.
type bed struct {
	*Controller
	t      *testing.T
	events *record.FakeRecorder
}

// setUp starts the caches of a controller, but not the library. Objects are
// what the API server has.
func setUp(t *testing.T, m *ledger.Memory, objects ...runtime.Object) *bed {
	t.Helper()
	b := prepare(t, m, objects...)
	b.start()
	return b
}

func (b *bed) start() {
	b.t.Helper()
	ctx := b.t.Context()
	b.provisioner.patience, b.volumes.callPatience = time.Minute, time.Minute // a test that waits for nothing fails by its own limit
	var wg sync.WaitGroup
	wg.Go(func() { b.view.Run(ctx) })
	b.factory.Start(ctx.Done())
	b.t.Cleanup(func() { wg.Wait(); b.factory.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), b.Ready) {
		b.t.Fatal("caches do not fill")
	}
}

// setUpWhole runs all of a controller, with no patience.
func setUpWhole(t *testing.T, m *ledger.Memory, objects ...runtime.Object) *bed {
	t.Helper()
	b := prepare(t, m, objects...)
	b.provisioner.patience = 0
	ended := make(chan error, 1)
	go func() { ended <- b.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

func prepare(t *testing.T, m *ledger.Memory, objects ...runtime.Object) *bed {
	t.Helper()
	c, err := newController(Config{Driver: testDriver, Namespace: "plinth", Log: slog.New(slog.DiscardHandler)}, fake.NewClientset(objects...), m)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Controller: c, t: t, events: record.NewFakeRecorder(100)}
	c.provisioner.events, c.expander.events, c.chores.events = b.events, b.events, b.events
	return b
}

// provision calls Provision for a claim of a class, on a node or "".
func (b *bed) provision(c *corev1.PersistentVolumeClaim, sc *storagev1.StorageClass, node string) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	return b.provisioner.Provision(b.t.Context(), controller.ProvisionOptions{
		StorageClass: sc, PVName: volumeName(c.UID), PVC: c, SelectedNodeName: node,
	})
}

// until waits until done says true of a volume in the view.
func (b *bed) until(name string, done func(*v1alpha1.PlinthVolume) bool) *v1alpha1.PlinthVolume {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	v, err := b.view.Until(ctx, name, done)
	if err != nil {
		b.t.Fatalf("waiting for volume %s, now %+v: %v", name, v.DeepCopy(), err)
	}
	return v
}

// woken records the claims and volumes that the library would look at.
type woken struct {
	cache.ResourceEventHandlerFuncs
	keys chan string
}

// listen stands in for the library's handlers.
func (b *bed) listen() *woken {
	w := &woken{keys: make(chan string, 100)}
	w.UpdateFunc = func(was, now any) {
		if was != now {
			return // a change of the object, not a wake-up
		}
		if m := now.(metav1.Object); m.GetUID() != "" {
			w.keys <- string(m.GetUID())
		} else {
			w.keys <- m.GetName()
		}
	}
	for _, i := range []*wakeable{b.claims, b.pvs} {
		if _, err := i.AddEventHandlerWithResyncPeriod(w, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	return w
}

func (w *woken) next(t *testing.T) string {
	t.Helper()
	select {
	case key := <-w.keys:
		return key
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was woken")
		return ""
	}
}

// fakeNode answers for one node as its agent would.
type fakeNode struct {
	name string
	// answer is the status of a volume that is to be made; nil leaves it.
	answer func(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus
	// keeps leaves volumes that are to be deleted.
	keeps bool
}

// run serves the node until the test ends or stop is called.
func (n *fakeNode) run(t *testing.T, m *ledger.Memory) (stop func()) {
	t.Helper()
	w, err := cache.ToWatcherWithContext(m.WatchVolumes(n.name)).WatchWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range w.ResultChan() {
			if v, ok := e.Object.(*v1alpha1.PlinthVolume); ok && e.Type != watch.Deleted {
				n.serve(m, v)
			}
		}
	})
	stop = sync.OnceFunc(func() { w.Stop(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func (n *fakeNode) serve(m *ledger.Memory, v *v1alpha1.PlinthVolume) {
	ctx := context.Background()
	switch {
	case v.DeletionTimestamp != nil:
		if !n.keeps && slices.Contains(v.Finalizers, v1alpha1.Finalizer) {
			_ = m.ReleaseVolume(ctx, v) // a conflict comes round again
		}
	case v.Status.Phase == "":
		if s := n.answer(v); s != nil {
			v.Status = *s
			v.Status.ObservedGeneration = v.Generation
			_, _ = m.UpdateVolumeStatus(ctx, v)
		}
	}
}

// makes is the answer of a node in good order.
func makes(v *v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus {
	s := &v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeReady, Size: &v.Spec.Size}
	if v.Spec.VolumeType != v1alpha1.VolumeTypeCSI {
		s.Path = "/mnt/" + v.Spec.Pool + "/volumes/" + v.Name
	}
	return s
}

// refuses is the answer of a node that gives a reason.
func refuses(reason string) func(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus {
	return func(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus {
		return &v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeFailed, Reason: reason, Message: "the node says " + reason}
	}
}

func silent(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus { return nil }

// reports has a node report its pools.
func reports(t *testing.T, m *ledger.Memory, name string, pools ...v1alpha1.PoolStatus) {
	t.Helper()
	n, err := m.GetNode(t.Context(), name)
	if err != nil {
		if n, err = m.CreateNode(t.Context(), &v1alpha1.PlinthNode{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	n.Status.Pools = pools
	if _, err := m.UpdateNodeStatus(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func btrfs(name, available string) v1alpha1.PoolStatus {
	return v1alpha1.PoolStatus{
		Name: name, Backend: "btrfs", UUID: "uuid-" + name, State: "Ready", Modes: []string{"Filesystem"}, Enforced: true,
		Capacity: resource.MustParse("100Gi"), Available: resource.MustParse(available), MaxVolume: resource.MustParse(available),
	}
}

func image(name, available string) v1alpha1.PoolStatus {
	p := btrfs(name, available)
	p.Backend, p.Modes, p.FSTypes = "image", []string{"Filesystem", "Block"}, []string{"ext4", "xfs"}
	p.Abilities = []string{"Thick"}
	return p
}

func sharedPool(name, available string) v1alpha1.PoolStatus {
	p := btrfs(name, available)
	p.Backend, p.Shared = "directory", true
	return p
}

func readyNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("node-" + name), Labels: map[string]string{"zone": "z-" + name}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

func claim(name, size string) *corev1.PersistentVolumeClaim {
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
			VolumeMode:  &mode, StorageClassName: ptr("sc"),
		},
	}
}

func class(name string, parameters map[string]string) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("class-" + name)}, Provisioner: testDriver, Parameters: parameters,
		VolumeBindingMode: ptr(storagev1.VolumeBindingImmediate),
	}
}

func delayedClass(name string, parameters map[string]string) *storagev1.StorageClass {
	sc := class(name, parameters)
	sc.VolumeBindingMode = ptr(storagev1.VolumeBindingWaitForFirstConsumer)
	return sc
}
