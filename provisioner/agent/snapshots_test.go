package agent

import (
	"context"
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func addSnapshot(t *testing.T, m *ledger.Memory, name, of string) {
	t.Helper()
	_, err := m.CreateSnapshot(t.Context(), &v1alpha1.PlinthSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec:       v1alpha1.PlinthSnapshotSpec{NodeName: "n1", Pool: "a", Volume: of},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func untilSnapshot(t *testing.T, m *ledger.Memory, name string, done func(*v1alpha1.PlinthSnapshot) bool) *v1alpha1.PlinthSnapshot {
	t.Helper()
	return watched(t, m.WatchSnapshots(""), func() (*v1alpha1.PlinthSnapshot, error) { return m.GetSnapshot(t.Context(), name) }, done)
}

func snapshotReady(s *v1alpha1.PlinthSnapshot) bool { return s != nil && s.Status.Ready }

func snapshotReason(word string) func(*v1alpha1.PlinthSnapshot) bool {
	return func(s *v1alpha1.PlinthSnapshot) bool { return s != nil && s.Status.Reason == word }
}

func TestSnapshotMadeAndFreed(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v1", isReady)
	addSnapshot(t, m, "s1", "v1")
	s := untilSnapshot(t, m, "s1", snapshotReady)
	if s.Status.Size.Value() != 1<<30 || s.Status.CreatedAt.Unix() != 1e9 {
		t.Errorf("status %+v", s.Status)
	}
	if err := m.DeleteSnapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	untilSnapshot(t, m, "s1", func(s *v1alpha1.PlinthSnapshot) bool { return s == nil })
	if n := e.count("delete snapshot s1"); n != 1 {
		t.Errorf("deleted %d times", n)
	}
}

// TestSnapshotIsCutOnce: an agent that is cut before it has told, or started
// anew, shows the moment that was asked for and not a later one.
func TestSnapshotIsCutOnce(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	_, stop := start(t, m, e)
	add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v1", isReady)
	e.mu.Lock()
	e.fails["snapshot+"] = context.DeadlineExceeded
	e.mu.Unlock()
	addSnapshot(t, m, "s1", "v1")
	untilSnapshot(t, m, "s1", snapshotReady)
	stop()
	before := e.count("snapshot s1")
	again, _ := start(t, m, e)
	again.PoolsChanged()
	add(t, m, intent("v2", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v2", isReady)
	if after := e.count("snapshot s1"); after != before {
		t.Errorf("cut %d times, then %d", before, after)
	}
}

func TestSnapshotCopies(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	e.copied = 512 << 20
	start(t, m, e)
	add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v1", isReady)
	addSnapshot(t, m, "s1", "v1")
	s := untilSnapshot(t, m, "s1", snapshotReason(v1alpha1.ReasonCopying))
	if s.Status.Ready || s.Status.CreatedAt == nil || s.Status.Message != "512Mi of 1Gi are copied" {
		t.Errorf("status %+v", s.Status)
	}
	e.mu.Lock()
	e.copied = 0
	e.mu.Unlock()
	if s = untilSnapshot(t, m, "s1", snapshotReady); s.Status.Reason != "" {
		t.Errorf("status %+v", s.Status)
	}
}

func TestSnapshotRefused(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		err          error
		ends         bool // it is made once the fault is gone, without a change of its object
	}{
		{"no volume", v1alpha1.ReasonSourceMissing, volume.ErrNotFound, false},
		{"no such ability", v1alpha1.ReasonUnsupported, volume.ErrUnsupported, false},
		{"no room", v1alpha1.ReasonNoCapacity, volume.ErrNoCapacity, false},
		{"in use", v1alpha1.ReasonInUse, volume.ErrInUse, true},
		{"busy", v1alpha1.ReasonInternal, volume.ErrBusy, true},
		{"pool away", v1alpha1.ReasonPoolUnavailable, volume.ErrPoolUnavailable, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, e := &ledger.Memory{}, newEngine()
			a, _ := start(t, m, e)
			add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
			untilVolume(t, m, "v1", isReady)
			e.mu.Lock()
			e.away["snapshot"] = c.err
			e.mu.Unlock()
			addSnapshot(t, m, "s1", "v1")
			s := untilSnapshot(t, m, "s1", snapshotReason(c.reason))
			if s.Status.Ready || s.Status.CreatedAt != nil || s.Status.Message == "" {
				t.Errorf("status %+v", s.Status)
			}
			e.mu.Lock()
			delete(e.away, "snapshot")
			e.mu.Unlock()
			a.PoolsChanged()
			if c.ends {
				untilSnapshot(t, m, "s1", snapshotReady)
				return
			}
			add(t, m, intent("v2", v1alpha1.VolumeTypeCSI))
			untilVolume(t, m, "v2", isReady)
			if n := e.count("snapshot s1"); n > 2 { // its watch may have been behind once
				t.Errorf("tried %d times", n)
			}
		})
	}
}

// TestSnapshotDataMissing: a snapshot whose data is not found is told of and
// not made again; it is whole again when its disk is back.
func TestSnapshotDataMissing(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	a, _ := start(t, m, e)
	add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v1", isReady)
	addSnapshot(t, m, "s1", "v1")
	untilSnapshot(t, m, "s1", snapshotReady)
	for _, c := range []struct {
		err    error
		reason string
	}{{volume.ErrNotFound, v1alpha1.ReasonDataMissing}, {volume.ErrPoolUnavailable, v1alpha1.ReasonPoolUnavailable}} {
		e.mu.Lock()
		e.away["get snapshot"] = c.err
		e.mu.Unlock()
		a.PoolsChanged()
		if s := untilSnapshot(t, m, "s1", snapshotReason(c.reason)); s.Status.Ready || s.Status.CreatedAt == nil {
			t.Errorf("status %+v", s.Status)
		}
	}
	e.mu.Lock()
	delete(e.away, "get snapshot")
	e.mu.Unlock()
	a.PoolsChanged()
	untilSnapshot(t, m, "s1", snapshotReady)
	if n := e.count("snapshot s1"); n > 2 { // its watch may have been behind once
		t.Errorf("asked for %d times", n)
	}
}

// TestSnapshotStaysUntilFreed: the object of a snapshot is held until its
// bytes are free.
func TestSnapshotStaysUntilFreed(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	add(t, m, intent("v1", v1alpha1.VolumeTypeCSI))
	untilVolume(t, m, "v1", isReady)
	addSnapshot(t, m, "s1", "v1")
	s := untilSnapshot(t, m, "s1", snapshotReady)
	e.mu.Lock()
	e.away["delete snapshot"] = errors.New("the disk is slow")
	e.mu.Unlock()
	if err := m.DeleteSnapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	untilSnapshot(t, m, "s1", snapshotReason(v1alpha1.ReasonInternal))
	e.mu.Lock()
	delete(e.away, "delete snapshot")
	e.mu.Unlock()
	untilSnapshot(t, m, "s1", func(s *v1alpha1.PlinthSnapshot) bool { return s == nil })
}
