package provisioner

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// cuts has a node answer for snapshots with a status, and free those that are
// to be deleted.
func cuts(t *testing.T, m *ledger.Memory, node string, status v1alpha1.PlinthSnapshotStatus) {
	t.Helper()
	w, err := cache.ToWatcherWithContext(m.WatchSnapshots(node)).WatchWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			s, ok := e.Object.(*v1alpha1.PlinthSnapshot)
			switch {
			case !ok || e.Type == watch.Deleted:
			case s.DeletionTimestamp != nil && slices.Contains(s.Finalizers, v1alpha1.Finalizer):
				_ = m.ReleaseSnapshot(context.Background(), s)
			case s.Status.CreatedAt == nil && s.Status.Reason == "":
				s.Status = status
				_, _ = m.UpdateSnapshotStatus(context.Background(), s)
			}
		}
	}()
	t.Cleanup(func() { w.Stop(); <-done })
}

func cut(ready bool) v1alpha1.PlinthSnapshotStatus {
	size := resource.MustParse("1Gi")
	return v1alpha1.PlinthSnapshotStatus{Ready: ready, Size: &size, CreatedAt: &metav1.Time{Time: time.Unix(1e9, 0)}}
}

// volumeOn adds a volume that its node has made.
func volumeOn(t *testing.T, m *ledger.Memory, name, node, pool, fsType string) {
	t.Helper()
	v := &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: node, Pool: pool, Size: resource.MustParse("1Gi"), VolumeMode: "Filesystem", FSType: fsType, VolumeType: v1alpha1.VolumeTypeCSI,
		},
	}
	v, err := m.CreateVolume(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	v.Status = v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeReady, Size: &v.Spec.Size}
	if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) snaps() *Snapshots {
	s := b.Snapshots()
	s.callPatience = time.Minute
	return s
}

func TestSnapshots(t *testing.T) {
	m := &ledger.Memory{}
	volumeOn(t, m, "v1", "n1", "fast", "xfs")
	volumeOn(t, m, "v2", "n1", "fast", "")
	cuts(t, m, "n1", cut(true))
	s := setUp(t, m, readyNode("n1")).snaps()
	r := volume.SnapshotRequest{Name: "Snapshot A", Volume: "v1"}
	first, err := s.CreateSnapshot(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := volume.Snapshot{
		ID: volume.IDForName(r.Name), Name: r.Name, Volume: "v1", Pool: "fast", Node: "n1", Mode: volume.Filesystem, FSType: "xfs",
		Size: 1 << 30, CreatedAt: time.Unix(1e9, 0), Ready: true,
	}
	if first.Name != want.Name || first.ID != want.ID || !first.CreatedAt.Equal(want.CreatedAt) || first.Size != want.Size || first.FSType != "xfs" || !first.Ready {
		t.Errorf("got %+v, want %+v", first, want)
	}
	if again, err := s.CreateSnapshot(t.Context(), r); err != nil || again.ID != first.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	if n := m.Writes("CreateSnapshot"); n != 1 {
		t.Errorf("%d objects were written", n)
	}
	r.Volume = "v2"
	if _, err := s.CreateSnapshot(t.Context(), r); !errors.Is(err, volume.ErrExists) {
		t.Errorf("the name of another volume's: %v", err)
	}
	if _, err := s.CreateSnapshot(t.Context(), volume.SnapshotRequest{Name: "b", Volume: "none"}); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("of no volume: %v", err)
	}
	if all, err := s.ListSnapshots(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("list: %+v, %v", all, err)
	}
	for range 2 {
		if err := s.DeleteSnapshot(t.Context(), first.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.GetSnapshot(t.Context(), first.ID); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

// TestSnapshotRefused: the fault comes back in the words of driver/volume, and
// the object is taken back, so that the next call asks anew.
func TestSnapshotRefused(t *testing.T) {
	for _, c := range []struct {
		reason string
		want   error
		kept   bool
	}{
		{v1alpha1.ReasonUnsupported, volume.ErrUnsupported, false},
		{v1alpha1.ReasonNoCapacity, volume.ErrNoCapacity, false},
		{v1alpha1.ReasonInUse, volume.ErrInUse, false},
		{v1alpha1.ReasonSourceMissing, volume.ErrNotFound, false},
		{v1alpha1.ReasonInternal, volume.ErrBusy, true},
	} {
		t.Run(c.reason, func(t *testing.T) {
			m := &ledger.Memory{}
			volumeOn(t, m, "v1", "n1", "fast", "")
			cuts(t, m, "n1", v1alpha1.PlinthSnapshotStatus{Reason: c.reason, Message: "the node says so"})
			s := setUp(t, m, readyNode("n1")).Snapshots()
			if c.kept {
				s.callPatience = time.Second / 2
			}
			if _, err := s.CreateSnapshot(t.Context(), volume.SnapshotRequest{Name: "a", Volume: "v1"}); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			_, err := s.view.UntilSnapshot(t.Context(), "a", func(o *v1alpha1.PlinthSnapshot) bool { return (o != nil) == c.kept })
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCreateFrom: a volume is made where its content is, or refused for what
// it should have been instead.
func TestCreateFrom(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*volume.Request)
		want   error // nil: on n1 in pool two
	}{
		{"snapshot", func(r *volume.Request) { r.From.Snapshot = "s1" }, nil},
		{"volume", func(r *volume.Request) { r.From.Volume = "v1" }, nil},
		{"larger", func(r *volume.Request) { r.From.Volume = "v1"; r.Size = 2 << 30 }, nil},
		{"smaller", func(r *volume.Request) { r.From.Volume = "v1"; r.Size = 1 << 29 }, volume.ErrOutOfRange},
		{"same filesystem", func(r *volume.Request) { r.From.Snapshot = "s1"; r.FSType = "xfs" }, nil},
		{"other filesystem", func(r *volume.Request) { r.From.Snapshot = "s1"; r.FSType = "ext4" }, volume.ErrInvalid},
		{"other mode", func(r *volume.Request) { r.From.Snapshot = "s1"; r.Mode = volume.Block }, volume.ErrInvalid},
		{"other pool", func(r *volume.Request) { r.From.Snapshot = "s1"; r.Pool = "one" }, volume.ErrInvalid},
		{"other node", func(r *volume.Request) { r.From.Snapshot = "s1"; r.Nodes = []string{"n2"} }, volume.ErrNoCapacity},
		{"its node among others", func(r *volume.Request) { r.From.Snapshot = "s1"; r.Nodes = []string{"n2", "n1"} }, nil},
		{"no such snapshot", func(r *volume.Request) { r.From.Snapshot = "none" }, volume.ErrNotFound},
		{"no such volume", func(r *volume.Request) { r.From.Volume = "none" }, volume.ErrNotFound},
		{"not whole", func(r *volume.Request) { r.From.Snapshot = "s2" }, volume.ErrBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &ledger.Memory{}
			volumeOn(t, m, "v1", "n1", "two", "xfs")
			for _, node := range []string{"n1", "n2"} {
				reports(t, m, node, image("one", "50Gi"), image("two", "10Gi"))
				(&fakeNode{name: node, answer: makes}).run(t, m)
			}
			snapshotOf(t, m, "s1", cut(true))
			snapshotOf(t, m, "s2", cut(false))
			b := setUp(t, m, readyNode("n1"), readyNode("n2"))
			r := volume.Request{Name: "copy", Spec: volume.Spec{Size: 1 << 30, Mode: volume.Filesystem}}
			c.change(&r)
			v, err := b.volumes.Create(t.Context(), r)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if c.want == nil && (v.Node != "n1" || v.Pool != "two" || v.FSType != "xfs" || v.From != r.From) {
				t.Errorf("got %+v", v)
			}
			if again, err := b.volumes.Create(t.Context(), r); c.want == nil && (err != nil || again.ID != v.ID) {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

// snapshotOf adds a snapshot of v1, which is on n1 in pool two.
func snapshotOf(t *testing.T, m *ledger.Memory, name string, status v1alpha1.PlinthSnapshotStatus) {
	t.Helper()
	s, err := m.CreateSnapshot(t.Context(), &v1alpha1.PlinthSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec:       v1alpha1.PlinthSnapshotSpec{NodeName: "n1", Pool: "two", Volume: "v1", VolumeMode: "Filesystem", FSType: "xfs"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Status = status
	if _, err := m.UpdateSnapshotStatus(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}
