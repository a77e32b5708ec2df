package agent

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// group asks for the snapshot of one volume of a group, and returns its name.
func group(t *testing.T, m *ledger.Memory, of string, volumes ...string) string {
	t.Helper()
	id, name := volume.MemberID("Group A", volume.ID(of))
	_, err := m.CreateSnapshot(t.Context(), &v1alpha1.PlinthSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: string(id), Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.PlinthSnapshotSpec{
			NodeName: "n1", Pool: "a", Volume: of, Name: name, Group: &v1alpha1.SnapshotGroup{ID: "g", Name: "Group A", Volumes: volumes},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(id)
}

func removeSnapshot(t *testing.T, m *ledger.Memory, name string) {
	t.Helper()
	s, err := m.GetSnapshot(t.Context(), name)
	if err == nil {
		err = m.DeleteSnapshot(t.Context(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func snapshotGone(s *v1alpha1.PlinthSnapshot) bool { return s == nil }

// A group is taken once, when all of its snapshots are asked for, and freed
// once, when all of them are to go.
func TestGroupTakenWhole(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	_, stop := start(t, m, e)
	one := group(t, m, "v1", "v1", "v2")
	addSnapshot(t, m, "alone", "v1")
	untilSnapshot(t, m, "alone", snapshotReason(v1alpha1.ReasonSourceMissing)) // the agent has seen both
	if n := e.count("group"); n != 0 {
		t.Fatalf("taken %d times before it was whole", n)
	}
	two := group(t, m, "v2", "v1", "v2")
	for _, name := range []string{one, two} {
		if s := untilSnapshot(t, m, name, snapshotReady); s.Status.CreatedAt.Unix() != 1e9 {
			t.Errorf("status %+v", s.Status)
		}
	}
	stop()
	start(t, m, e) // a restart looks for them, and takes none
	removeSnapshot(t, m, one)
	s := untilSnapshot(t, m, one, snapshotReason(v1alpha1.ReasonInUse))
	if !strings.Contains(s.Status.Message, "group g") || e.count("delete group") != 0 {
		t.Errorf("%q, deleted %d times", s.Status.Message, e.count("delete group"))
	}
	removeSnapshot(t, m, two)
	untilSnapshot(t, m, two, snapshotGone)
	untilSnapshot(t, m, one, snapshotGone)
	if e.cut != 2 { // however often it was asked for: the agent may not have heard yet that it was taken
		t.Errorf("%d snapshots were taken", e.cut)
	}
	if len(e.snaps) != 0 {
		t.Errorf("left: %v", e.snaps)
	}
}

// What the node cannot take is said of each snapshot, and half a group that is
// given up goes.
func TestGroupRefused(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	start(t, m, e)
	e.mu.Lock()
	e.away["group"] = volume.ErrUnsupported
	e.mu.Unlock()
	names := []string{group(t, m, "v1", "v1", "v2"), group(t, m, "v2", "v1", "v2")}
	for _, name := range names {
		untilSnapshot(t, m, name, snapshotReason(v1alpha1.ReasonUnsupported))
	}
	for _, name := range names {
		removeSnapshot(t, m, name)
	}
	for _, name := range names {
		untilSnapshot(t, m, name, snapshotGone)
	}
	half := group(t, m, "v3", "v3", "v4")
	removeSnapshot(t, m, half)
	untilSnapshot(t, m, half, snapshotGone)
}
