package driver

import (
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/plinth-csi/plinth/driver/volume"
)

// groups serves the group g, of the snapshots e and f; d is a snapshot alone.
func groups() (*groupServer, *fakeSnapshots) {
	c, v, s := snapServer()
	s.snapshots["f"] = volume.Snapshot{ID: "f", Volume: "vol", Group: "g"}
	s.groups = map[volume.ID]volume.Group{"g": {ID: "g", Snapshots: []volume.Snapshot{s.snapshots["e"], s.snapshots["f"]}}}
	return &groupServer{volumes: v, snapshots: c.snapshots, groups: s}, s
}

func TestCreateGroup(t *testing.T) {
	type req = csi.CreateVolumeGroupSnapshotRequest
	for _, c := range []struct {
		name   string
		change func(*req)
		err    error
		code   codes.Code
	}{
		{"good", func(*req) {}, nil, codes.OK},
		{"no name", func(r *req) { r.Name = "" }, nil, codes.InvalidArgument},
		{"no volumes", func(r *req) { r.SourceVolumeIds = nil }, nil, codes.InvalidArgument},
		{"one without ID", func(r *req) { r.SourceVolumeIds[0] = "" }, nil, codes.InvalidArgument},
		{"one twice", func(r *req) { r.SourceVolumeIds[0] = "My/Disk" }, nil, codes.InvalidArgument},
		{"unknown parameter", func(r *req) { r.Parameters = map[string]string{"keep": "7d"} }, nil, codes.InvalidArgument},
		{"no volume of ours", func(r *req) { r.SourceVolumeIds[0] = "../vol" }, nil, codes.NotFound},
		{"name taken", func(*req) {}, volume.ErrExists, codes.AlreadyExists},
		{"not together", func(*req) {}, volume.ErrInUse, codes.FailedPrecondition},
		{"under way", func(*req) {}, volume.ErrBusy, codes.Aborted},
		{"no space", func(*req) {}, volume.ErrNoCapacity, codes.ResourceExhausted},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := groups()
			f.err = c.err
			r := &req{Name: "g-1", SourceVolumeIds: []string{"vol", "My/Disk"}}
			c.change(r)
			resp, err := s.CreateVolumeGroupSnapshot(t.Context(), r)
			if c.code != codes.OK {
				if err == nil || code(err) != c.code {
					t.Errorf("got %v", err)
				}
				return
			}
			g := resp.GetGroupSnapshot()
			if err != nil || g.GetGroupSnapshotId() != "g-1" || len(g.GetSnapshots()) != 2 || g.GetSnapshots()[0].GetGroupSnapshotId() != "g-1" ||
				!g.GetReadyToUse() || g.GetCreationTime() == nil || !slices.Equal(f.askedFor.Volumes, []volume.ID{"vol", volume.IDForName("My/Disk")}) {
				t.Errorf("got %v, %v, asked %+v", g, err, f.askedFor)
			}
		})
	}
}

// TestGroupSnapshotIDs: the list has to be the group's, but for snapshots that
// are gone.
func TestGroupSnapshotIDs(t *testing.T) {
	for _, c := range []struct {
		name, id     string
		list         []string
		get, deleted codes.Code
	}{
		{"its own", "g", []string{"f", "e"}, codes.OK, codes.OK},
		{"one that is gone too", "g", []string{"e", "f", "other"}, codes.OK, codes.OK},
		{"one too few", "g", []string{"e"}, codes.InvalidArgument, codes.InvalidArgument},
		{"none", "g", nil, codes.InvalidArgument, codes.InvalidArgument},
		{"one of somebody else", "g", []string{"e", "f", "d"}, codes.InvalidArgument, codes.InvalidArgument},
		{"one without ID", "g", []string{"e", "f", ""}, codes.InvalidArgument, codes.InvalidArgument},
		{"no ID", "", nil, codes.InvalidArgument, codes.InvalidArgument},
		{"unknown", "other", []string{"e"}, codes.NotFound, codes.OK},
		{"no group of ours", "../g", nil, codes.NotFound, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := groups()
			got, err := s.GetVolumeGroupSnapshot(t.Context(), &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: c.id, SnapshotIds: c.list})
			if err == nil && len(got.GetGroupSnapshot().GetSnapshots()) != 2 || err != nil && code(err) != c.get || (err == nil) != (c.get == codes.OK) {
				t.Errorf("get: %v, %v", got, err)
			}
			_, err = s.DeleteVolumeGroupSnapshot(t.Context(), &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: c.id, SnapshotIds: c.list})
			if err != nil && code(err) != c.deleted || (err == nil) != (c.deleted == codes.OK) {
				t.Errorf("delete: %v", err)
			}
			if wanted := c.deleted == codes.OK && c.id != "../g"; (len(f.deleted) > 0) != wanted {
				t.Errorf("deleted %v", f.deleted)
			}
		})
	}
}
