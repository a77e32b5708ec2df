package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

var _ Objects = (*ledger.Memory)(nil)

// start runs an agent until the test ends or stop is called.
func start(t *testing.T, m *ledger.Memory, e *engine) (a *Agent, stop func()) {
	t.Helper()
	a, err := New(Config{Node: "n1", Version: "v1", Engine: e, Objects: m, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { a.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return a, stop
}

func intent(name string, kind v1alpha1.VolumeType, change ...func(*v1alpha1.PlinthVolume)) *v1alpha1.PlinthVolume {
	v := &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: "n1", Pool: "a", Size: resource.MustParse("1Gi"), VolumeMode: "Filesystem", VolumeType: kind, ClaimName: "data",
		},
	}
	for _, c := range change {
		c(v)
	}
	return v
}

func add(t *testing.T, m *ledger.Memory, v *v1alpha1.PlinthVolume) *v1alpha1.PlinthVolume {
	t.Helper()
	status := v.Status
	v, err := m.CreateVolume(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if status.Phase == "" {
		return v
	}
	v.Status = status
	if v, err = m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	return v
}

// watched waits until done says true of what get returns, looking again at
// each event of a watch.
func watched[T any](t *testing.T, lw cache.ListerWatcher, get func() (*T, error), done func(*T) bool) *T {
	t.Helper()
	w, err := cache.ToWatcherWithContext(lw).WatchWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	limit := time.After(20 * time.Second)
	for {
		now, err := get()
		if apierrors.IsNotFound(err) {
			now, err = nil, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if done(now) {
			return now
		}
		select {
		case <-w.ResultChan():
		case <-limit:
			t.Fatalf("never as expected, now %+v", now)
		}
	}
}

func untilVolume(t *testing.T, m *ledger.Memory, name string, done func(*v1alpha1.PlinthVolume) bool) *v1alpha1.PlinthVolume {
	t.Helper()
	return watched(t, m.WatchVolumes(""), func() (*v1alpha1.PlinthVolume, error) { return m.GetVolume(t.Context(), name) }, done)
}

func untilNode(t *testing.T, m *ledger.Memory, done func(*v1alpha1.PlinthNode) bool) *v1alpha1.PlinthNode {
	t.Helper()
	return watched(t, m.WatchNodes(""), func() (*v1alpha1.PlinthNode, error) { return m.GetNode(t.Context(), "n1") }, done)
}

func isReady(v *v1alpha1.PlinthVolume) bool {
	return v != nil && v.Status.Phase == v1alpha1.VolumeReady
}

func isGone(v *v1alpha1.PlinthVolume) bool { return v == nil }

func reason(word string) func(*v1alpha1.PlinthVolume) bool {
	return func(v *v1alpha1.PlinthVolume) bool { return v != nil && v.Status.Reason == word }
}

// Nothing is made of an object that its deletion would not free.
func TestMakeNothingUnheld(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("by-hand", v1alpha1.VolumeTypeCSI, func(v *v1alpha1.PlinthVolume) { v.Finalizers = nil }))
	add(t, m, intent("later", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "later", isReady)
	if now := untilVolume(t, m, "by-hand", func(v *v1alpha1.PlinthVolume) bool { return v != nil }); now.Status.Phase != "" {
		t.Errorf("status %+v", now.Status)
	}
	if err := m.HoldVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "by-hand", isReady)
}

func TestMakeAndFree(t *testing.T) {
	for _, kind := range []v1alpha1.VolumeType{v1alpha1.VolumeTypeCSI, v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath} {
		t.Run(string(kind), func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			start(t, m, e)
			add(t, m, intent("v", kind))
			add(t, m, intent("other", kind, func(v *v1alpha1.PlinthVolume) { v.Spec.NodeName = "n2" }))
			v := untilVolume(t, m, "v", isReady)
			if v.Status.Size.Value() != 1<<30 || v.Status.ObservedGeneration != v.Generation || v.Status.Reason != "" {
				t.Errorf("status %+v", v.Status)
			}
			if want := map[bool]string{true: "", false: "/mounts/v"}[kind == v1alpha1.VolumeTypeCSI]; v.Status.Path != want {
				t.Errorf("path %q, want %q", v.Status.Path, want)
			}
			if made := e.volumes["v"]; made.Pool != "a" || made.Name != "v" || made.Labels["claim"] != "data" {
				t.Errorf("made %+v", made)
			}
			if err := m.DeleteVolume(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			untilVolume(t, m, "v", isGone)
			if e.has("v") || e.exposed["v"] || e.has("other") {
				t.Error("something is left, or made for another node")
			}
			if a, b := m.Writes("UpdateVolumeStatus"), m.Writes("ReleaseVolume"); a != 1 || b != 1 {
				t.Errorf("%d writes to make, %d to free", a, b)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		op     string
		err    error
		phase  v1alpha1.VolumePhase // that it is left in; "" if it is mended by another try
		reason string
	}{
		{op: "create", err: volume.ErrNoCapacity, phase: v1alpha1.VolumeFailed, reason: v1alpha1.ReasonNoCapacity},
		{op: "create", err: volume.ErrPoolUnavailable, phase: v1alpha1.VolumeFailed, reason: v1alpha1.ReasonPoolUnavailable},
		{op: "create", err: volume.ErrUnsupported, phase: v1alpha1.VolumeFailed, reason: v1alpha1.ReasonUnsupported},
		{op: "create", err: volume.ErrOutOfRange, phase: v1alpha1.VolumeFailed, reason: v1alpha1.ReasonInvalid},
		{op: "create", err: volume.ErrExists, phase: v1alpha1.VolumeFailed, reason: v1alpha1.ReasonInvalid},
		{op: "create", err: volume.ErrBusy},
		{op: "create", err: errors.New("i/o error")},
		{op: "create+", err: errors.New("cut")},
		{op: "expose", err: errors.New("mount failed")},
		{op: "expose+", err: errors.New("cut")},
	} {
		t.Run(tc.op+" "+tc.err.Error(), func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			e.fails[tc.op] = tc.err
			start(t, m, e)
			add(t, m, intent("v", v1alpha1.VolumeTypeLocal))
			if tc.phase == "" {
				untilVolume(t, m, "v", isReady)
				return
			}
			v := untilVolume(t, m, "v", reason(tc.reason))
			if v.Status.Phase != tc.phase || v.Status.Size != nil || v.Status.Message == "" {
				t.Errorf("status %+v", v.Status)
			}
			if err := m.DeleteVolume(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			untilVolume(t, m, "v", isGone)
			if n := e.count("create"); n != 1 {
				t.Errorf("a volume that was refused was tried %d times", n)
			}
		})
	}
}

// A cut at any step, of making or of freeing, before or after its effect, is
// made good by an agent that starts anew.
func TestCutAnywhere(t *testing.T) {
	cut := errors.New("cut")
	for _, op := range []string{"create", "expose", "UpdateVolumeStatus", "get", "unexpose", "delete", "ReleaseVolume"} {
		for _, after := range []string{"", "+"} {
			t.Run(op+after, func(t *testing.T) {
				e := newEngine()
				e.fails[op+after] = cut
				var once sync.Once
				m := &ledger.Memory{Fail: func(did, _ string) (err error) {
					if did == op && after == "" {
						once.Do(func() { err = cut })
					}
					return err
				}}
				v := add(t, m, intent("v", v1alpha1.VolumeTypeLocal))
				_, stop := start(t, m, e)
				untilVolume(t, m, "v", isReady)
				stop()
				start(t, m, e)
				if err := m.DeleteVolume(t.Context(), v); err != nil {
					t.Fatal(err)
				}
				untilVolume(t, m, "v", isGone)
				if e.has("v") || e.exposed["v"] {
					t.Error("something is left")
				}
			})
		}
	}
}

func made(size string) func(*v1alpha1.PlinthVolume) {
	q := resource.MustParse(size)
	return func(v *v1alpha1.PlinthVolume) {
		v.Status = v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeReady, Size: &q, ObservedGeneration: 1}
	}
}

// An agent that starts looks at what is there and changes nothing.
func TestStartTouchesNothing(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	for i := range 20 {
		v := add(t, m, intent(fmt.Sprintf("v%d", i), v1alpha1.VolumeTypeCSI, made("1Gi")))
		e.volumes[volume.ID(v.Name)] = volume.Volume{Spec: request(v).Spec, Pool: "a", Node: "n1"}
	}
	before := m.Writes("UpdateVolumeStatus")
	a, _ := start(t, m, e)
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n != nil && n.Status.PoolsReady != "" })
	// Behind all the others in the queue:
	add(t, m, intent("last", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "last", isReady)
	for i := range 20 {
		for a.toCheck(fmt.Sprintf("v%d", i)) { // the workers run side by side
			untilVolume(t, m, "last", isReady)
		}
	}
	for _, op := range []string{"expose", "unexpose", "delete", "expand"} {
		if n := e.count(op); n != 0 {
			t.Errorf("%d calls of %s", n, op)
		}
	}
	if n := m.Writes("UpdateVolumeStatus") - before; n != 1 {
		t.Errorf("%d statuses were written", n)
	}
}

// A volume that was made is never made again: its data may be on a disk that
// is away.
func TestDataMissing(t *testing.T) {
	for _, tc := range []struct {
		fault  error // of the engine; nil: it knows of no such volume
		reason string
	}{
		{nil, v1alpha1.ReasonDataMissing},
		{volume.ErrPoolUnavailable, v1alpha1.ReasonPoolUnavailable},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			if tc.fault != nil {
				e.away["get"] = tc.fault
			}
			add(t, m, intent("v", v1alpha1.VolumeTypeCSI, made("1Gi")))
			a, _ := start(t, m, e)
			v := untilVolume(t, m, "v", reason(tc.reason))
			if v.Status.Phase != v1alpha1.VolumeFailed || v.Status.Size == nil {
				t.Errorf("status %+v", v.Status)
			}
			if e.count("create") != 0 {
				t.Fatal("the volume was made again")
			}
			e.mu.Lock()
			delete(e.away, "get")
			e.volumes["v"] = volume.Volume{Spec: request(v).Spec, Pool: "a", Node: "n1"}
			e.mu.Unlock()
			a.PoolsChanged()
			v = untilVolume(t, m, "v", isReady)
			if v.Status.Reason != "" || v.Status.Message != "" {
				t.Errorf("status %+v", v.Status)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	e.room = 4 << 30
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v", isReady)
	grown := func(to string) func(*v1alpha1.PlinthVolume) bool {
		want := resource.MustParse(to)
		return func(v *v1alpha1.PlinthVolume) bool { return v.Status.Size.Cmp(want) == 0 }
	}
	resize := func(to string) {
		if _, err := m.ResizeVolume(t.Context(), v, resource.MustParse(to)); err != nil {
			t.Fatal(err)
		}
	}
	resize("2Gi")
	untilVolume(t, m, "v", grown("2Gi"))
	resize("9Gi")
	v = untilVolume(t, m, "v", reason(v1alpha1.ReasonNoCapacity))
	if v.Status.Phase != v1alpha1.VolumeReady || !grown("2Gi")(v) || v.Status.ObservedGeneration != v.Generation {
		t.Errorf("status %+v", v.Status)
	}
	resize("2Gi") // the intent is taken back
	resize("3Gi")
	v = untilVolume(t, m, "v", grown("3Gi"))
	if v.Status.Reason != "" {
		t.Errorf("status %+v", v.Status)
	}
}

func TestDeleteInUse(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	a, _ := start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v", isReady)
	e.mu.Lock()
	e.fails["delete"] = volume.ErrInUse
	e.mu.Unlock()
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", func(v *v1alpha1.PlinthVolume) bool { return v == nil || v.Status.Reason == v1alpha1.ReasonInUse })
	a.Retry("v")
	untilVolume(t, m, "v", isGone)
}

// A deletion that was cut after the bytes were freed ends also while some other
// pool is away, in which the volume could be for all that Unexpose knows.
func TestDeleteWhileAnotherPoolIsAway(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeLocal))
	untilVolume(t, m, "v", isReady)
	e.mu.Lock()
	delete(e.volumes, "v")
	e.away["unexpose"] = volume.ErrPoolUnavailable
	e.mu.Unlock()
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", isGone)
}

// An object that was refused for want of a pool is let go, and what an earlier
// try may have left there is deleted when the pool comes.
func TestRefusedWithoutPool(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	e.fails["create+"] = volume.ErrPoolUnavailable
	a, _ := start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v", reason(v1alpha1.ReasonPoolUnavailable))
	e.mu.Lock()
	e.fails["delete"] = volume.ErrPoolUnavailable
	e.mu.Unlock()
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", isGone)
	e.mu.Lock()
	e.pools = []volume.PoolStatus{{Name: "a", State: volume.PoolReady}}
	e.mu.Unlock()
	a.PoolsChanged()
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool {
		return n != nil && n.Status.PoolsReady == "1/1" && n.Status.Volumes == 0
	})
}

// Objects that are deleted for the sake of their definition keep their data,
// and the pods that have it.
func TestWithdrawn(t *testing.T) {
	m, e := &ledger.Memory{Gone: true}, newEngine()
	start(t, m, e)
	v := add(t, m, intent("v", v1alpha1.VolumeTypeLocal))
	untilVolume(t, m, "v", isReady)
	addSnapshot(t, m, "s", "v")
	s := untilSnapshot(t, m, "s", snapshotReady)
	if err := m.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	untilVolume(t, m, "v", reason(v1alpha1.ReasonWithdrawn))
	if err := m.DeleteSnapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	untilSnapshot(t, m, "s", snapshotReason(v1alpha1.ReasonWithdrawn))
	if !e.has("v") || !e.exposed["v"] || len(e.snaps) != 1 {
		t.Error("something was freed")
	}
}
