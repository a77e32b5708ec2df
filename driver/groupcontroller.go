package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Groups is what the group controller service asks for. Every method may be
// called again after any cut.
type Groups interface {
	// CreateGroup takes snapshots of several volumes together, or finds the
	// group of that name, which ErrExists says is of other volumes.
	CreateGroup(ctx context.Context, r volume.GroupRequest) (volume.Group, error)
	// DeleteGroup deletes a group and its snapshots; one that is not there is
	// no error.
	DeleteGroup(ctx context.Context, id volume.ID) error
	// GetGroup returns ErrNotFound for one that no record tells of.
	GetGroup(ctx context.Context, id volume.ID) (volume.Group, error)
}

// The parameters by which a group's sidecar says who asks for it.
const (
	paramGroup   = reservedPrefix + "volumegroupsnapshot/name"
	paramGroupNS = reservedPrefix + "volumegroupsnapshot/namespace"
)

// groupServer is the CSI GroupController service.
type groupServer struct {
	csi.UnimplementedGroupControllerServer
	volumes   Volumes
	snapshots Snapshots
	groups    Groups
}

func (s *groupServer) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
		}},
	}}}, nil
}

func (s *groupServer) CreateVolumeGroupSnapshot(ctx context.Context, req *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	if len(req.GetSourceVolumeIds()) == 0 {
		return nil, fmt.Errorf("%w: source_volume_ids are missing", volume.ErrInvalid)
	}
	labels, err := noParameters(req.GetParameters(), paramGroup, paramGroupNS)
	if err != nil {
		return nil, err
	}
	r := volume.GroupRequest{ID: volume.IDForName(req.GetName()), Name: req.GetName(), Labels: labels}
	for _, handle := range req.GetSourceVolumeIds() {
		id, err := resolve(ctx, s.volumes, handle)
		if err != nil {
			return nil, err
		}
		if slices.Contains(r.Volumes, id) {
			return nil, fmt.Errorf("%w: volume %s is among source_volume_ids twice", volume.ErrInvalid, id)
		}
		r.Volumes = append(r.Volumes, id)
	}
	g, err := s.groups.CreateGroup(ctx, r)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: describeGroup(g)}, nil
}

func (s *groupServer) DeleteVolumeGroupSnapshot(ctx context.Context, req *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	id, err := snapshotID("group_snapshot_id", req.GetGroupSnapshotId())
	if err == nil {
		err = s.matches(ctx, id, req.GetSnapshotIds())
	}
	if err == nil || errors.Is(err, volume.ErrNotFound) && id != "" {
		err = s.groups.DeleteGroup(ctx, id) // one that is half made is not found, too
	}
	if err := absent(err); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

func (s *groupServer) GetVolumeGroupSnapshot(ctx context.Context, req *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	id, err := snapshotID("group_snapshot_id", req.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := s.matches(ctx, id, req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	g, err := s.groups.GetGroup(ctx, id)
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: describeGroup(g)}, nil
}

// matches compares a group with the snapshots that the caller takes for its
// own (CSI 1.13, DeleteVolumeGroupSnapshot Errors: INVALID_ARGUMENT). Those
// that a deletion which was cut has taken already may be in the list.
func (s *groupServer) matches(ctx context.Context, id volume.ID, list []string) error {
	g, err := s.groups.GetGroup(ctx, id)
	if err != nil {
		return err
	}
	own := map[string]bool{}
	for _, snap := range g.Snapshots {
		own[string(snap.ID)] = true
		if !slices.Contains(list, string(snap.ID)) {
			return fmt.Errorf("%w: group %s has the snapshot %s, which is not in snapshot_ids", volume.ErrInvalid, id, snap.ID)
		}
	}
	for _, other := range list {
		if own[other] {
			continue
		}
		otherID, err := snapshotID("snapshot_ids", other)
		if err == nil {
			_, err = s.snapshots.GetSnapshot(ctx, otherID)
		}
		if err == nil {
			err = fmt.Errorf("%w: snapshot %s is in snapshot_ids and not in group %s", volume.ErrInvalid, otherID, id)
		}
		if err := absent(err); err != nil {
			return err
		}
	}
	return nil
}

func describeGroup(g volume.Group) *csi.VolumeGroupSnapshot {
	out := &csi.VolumeGroupSnapshot{GroupSnapshotId: string(g.ID), CreationTime: timestamppb.New(g.CreatedAt), ReadyToUse: g.Ready}
	for _, snap := range g.Snapshots {
		out.Snapshots = append(out.Snapshots, describeSnapshot(snap))
	}
	return out
}
