package provisioner

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func TestGroups(t *testing.T) {
	m := &ledger.Memory{}
	for _, name := range []string{"v1", "v2", "v3"} {
		volumeOn(t, m, name, "n1", "fast", "xfs")
	}
	volumeOn(t, m, "far", "n2", "fast", "xfs")
	cuts(t, m, "n1", cut(true))
	s := setUp(t, m).snaps()
	r := volume.GroupRequest{Name: "Group A", Volumes: []volume.ID{"v2", "v1"}}
	g, err := s.CreateGroup(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if g.ID != volume.IDForName(r.Name) || !g.Ready || len(g.Snapshots) != 2 || !g.CreatedAt.Equal(time.Unix(1e9, 0)) {
		t.Errorf("group %+v", g)
	}
	for i, of := range []volume.ID{"v1", "v2"} {
		one := g.Snapshots[i]
		if id, name := volume.MemberID(r.Name, of); one.ID != id || one.Name != name || one.Volume != of || one.Group != g.ID || one.Node != "n1" {
			t.Errorf("snapshot %+v", one)
		}
	}
	if again, err := s.CreateGroup(t.Context(), r); err != nil || len(again.Snapshots) != 2 || m.Writes("CreateSnapshot") != 2 {
		t.Errorf("again: %+v, %v, %d writes", again, err, m.Writes("CreateSnapshot"))
	}
	for _, c := range []struct {
		name string
		r    volume.GroupRequest
		is   error
		says string
	}{
		{"of other volumes", volume.GroupRequest{Name: r.Name, Volumes: []volume.ID{"v1", "v3"}}, volume.ErrExists, "v3"},
		{"on two nodes", volume.GroupRequest{Name: "b", Volumes: []volume.ID{"v3", "far"}}, volume.ErrInvalid, "node n2"},
		{"of no volume", volume.GroupRequest{Name: "c", Volumes: []volume.ID{"v3", "none"}}, volume.ErrNotFound, "none"},
	} {
		if _, err := s.CreateGroup(t.Context(), c.r); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n := m.Writes("CreateSnapshot"); n != 2 {
		t.Errorf("%d snapshots were written", n)
	}
	if found, err := s.GetGroup(t.Context(), g.ID); err != nil || !found.Ready || len(found.Snapshots) != 2 {
		t.Errorf("found %+v, %v", found, err)
	}
	if err := s.DeleteSnapshot(t.Context(), g.Snapshots[0].ID); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("one alone: %v", err)
	}
	for range 2 {
		if err := s.DeleteGroup(t.Context(), g.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.GetGroup(t.Context(), g.ID); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
}

// What a node refuses is taken back, so that the next call asks anew.
func TestGroupTakenBack(t *testing.T) {
	m := &ledger.Memory{}
	volumeOn(t, m, "v1", "n1", "fast", "")
	volumeOn(t, m, "v2", "n1", "fast", "")
	cuts(t, m, "n1", v1alpha1.PlinthSnapshotStatus{Reason: v1alpha1.ReasonUnsupported, Message: "use images on XFS"})
	s := setUp(t, m).snaps()
	for range 2 {
		_, err := s.CreateGroup(t.Context(), volume.GroupRequest{Name: "g", Volumes: []volume.ID{"v1", "v2"}})
		if errors.Is(err, volume.ErrBusy) {
			continue // still being taken back
		}
		if !errors.Is(err, volume.ErrUnsupported) || !strings.Contains(err.Error(), "use images on XFS") {
			t.Errorf("got %v", err)
		}
	}
	if err := s.DeleteGroup(t.Context(), "g"); err != nil {
		t.Error(err)
	}
}
