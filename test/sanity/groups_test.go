package sanity

import (
	"fmt"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// groupLife takes a group of two volumes through CSI, which csi-sanity does not:
// what it has for groups are refusals.
func groupLife(t *testing.T, s Suite) {
	t.Helper()
	// The driver may not listen yet.
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	controller, groups := csi.NewControllerClient(conn), csi.NewGroupControllerClient(conn)
	capability := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	if s.AccessType == "block" {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	req := &csi.CreateVolumeGroupSnapshotRequest{Name: "Group/1"}
	for i := range 2 {
		v, err := controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
			Name: fmt.Sprint("member-", i), CapacityRange: &csi.CapacityRange{RequiredBytes: s.Size},
			VolumeCapabilities: []*csi.VolumeCapability{capability}, Parameters: s.Parameters,
		})
		must(err)
		req.SourceVolumeIds = append(req.SourceVolumeIds, v.GetVolume().GetVolumeId())
	}
	made, err := groups.CreateVolumeGroupSnapshot(t.Context(), req)
	must(err)
	again, err := groups.CreateVolumeGroupSnapshot(t.Context(), req)
	must(err)
	g := made.GetGroupSnapshot()
	if g.String() != again.GetGroupSnapshot().String() || !g.GetReadyToUse() || len(g.GetSnapshots()) != 2 {
		t.Errorf("made %v, and again %v", made, again)
	}
	var ids []string
	for _, snap := range g.GetSnapshots() {
		ids = append(ids, snap.GetSnapshotId())
		if snap.GetGroupSnapshotId() != g.GetGroupSnapshotId() || !snap.GetReadyToUse() {
			t.Errorf("%v", snap)
		}
		_, err := controller.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snap.GetSnapshotId()})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("deleted alone: %v", err)
		}
	}
	_, err = groups.CreateVolumeGroupSnapshot(t.Context(), &csi.CreateVolumeGroupSnapshotRequest{Name: req.GetName(), SourceVolumeIds: req.GetSourceVolumeIds()[:1]})
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("of other volumes: %v", err)
	}
	found, err := groups.GetVolumeGroupSnapshot(t.Context(), &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: ids})
	must(err)
	if found.GetGroupSnapshot().String() != g.String() {
		t.Errorf("made %v, and found %v", g, found)
	}
	_, err = groups.DeleteVolumeGroupSnapshot(t.Context(), &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: ids[:1]})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("deleted with one of two: %v", err)
	}
	for range 2 {
		_, err = groups.DeleteVolumeGroupSnapshot(t.Context(), &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: ids})
		must(err)
	}
	for _, id := range req.GetSourceVolumeIds() {
		_, err := controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
		must(err)
	}
	list, err := controller.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	if err != nil || len(list.GetEntries()) != 0 {
		t.Errorf("left are %v, %v", list, err)
	}
}
