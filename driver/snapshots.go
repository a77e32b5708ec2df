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

// Snapshots is what the controller service asks for beyond Volumes to copy
// volumes as they were. Every method may be called again after any cut.
type Snapshots interface {
	// CreateSnapshot takes a snapshot or finds the one of that name, which
	// ErrExists says is of another volume. ErrNotFound without the volume.
	CreateSnapshot(ctx context.Context, r volume.SnapshotRequest) (volume.Snapshot, error)
	// DeleteSnapshot returns once its own bytes are free; one that is not
	// there is no error. ErrInvalid for one of a group, which goes with it
	// alone (CSI 1.13, DeleteSnapshot Errors: INVALID_ARGUMENT).
	DeleteSnapshot(ctx context.Context, id volume.ID) error
	// GetSnapshot returns ErrNotFound for one that no record tells of.
	GetSnapshot(ctx context.Context, id volume.ID) (volume.Snapshot, error)
	// ListSnapshots gives all snapshots, in any order.
	ListSnapshots(ctx context.Context) ([]volume.Snapshot, error)
}

// The parameters by which a snapshot's sidecar says who asks for it.
const (
	paramSnapshot   = reservedPrefix + "volumesnapshot/name"
	paramSnapshotNS = reservedPrefix + "volumesnapshot/namespace"
)

// CreateSnapshot is idempotent by its name, also after its volume is gone.
func (s *controllerServer) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if s.snapshots == nil {
		return s.UnimplementedControllerServer.CreateSnapshot(ctx, req)
	}
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	if req.GetSourceVolumeId() == "" {
		return nil, fmt.Errorf("%w: source_volume_id is missing", volume.ErrInvalid)
	}
	labels, err := noParameters(req.GetParameters(), paramSnapshot, paramSnapshotNS)
	if err != nil {
		return nil, err
	}
	v, err := lookup(ctx, s.volumes, req.GetSourceVolumeId())
	if errors.Is(err, volume.ErrNotFound) {
		// A snapshot outlives its volume, and is found by its name.
		if taken, getErr := s.snapshots.GetSnapshot(ctx, volume.IDForName(req.GetName())); getErr == nil && string(taken.Volume) == req.GetSourceVolumeId() {
			return &csi.CreateSnapshotResponse{Snapshot: describeSnapshot(taken)}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshots.CreateSnapshot(ctx, volume.SnapshotRequest{
		ID: volume.IDForName(req.GetName()), Name: req.GetName(), Volume: v.ID, Labels: labels,
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: describeSnapshot(snap)}, nil
}

// DeleteSnapshot: no snapshot of an ID is no error (CSI 1.13).
func (s *controllerServer) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if s.snapshots == nil {
		return s.UnimplementedControllerServer.DeleteSnapshot(ctx, req)
	}
	id, err := snapshotID("snapshot_id", req.GetSnapshotId())
	if err == nil {
		err = s.snapshots.DeleteSnapshot(ctx, id)
	}
	if err := absent(err); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// ListSnapshots: a filter that fits nothing gives nothing (CSI 1.13).
func (s *controllerServer) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if s.snapshots == nil {
		return s.UnimplementedControllerServer.ListSnapshots(ctx, req)
	}
	all, err := s.listed(ctx, req)
	if err != nil {
		return nil, err
	}
	part, next, err := page(req, all, func(snap volume.Snapshot) volume.ID { return snap.ID })
	if err != nil {
		return nil, err
	}
	resp := &csi.ListSnapshotsResponse{NextToken: next}
	for _, snap := range part {
		resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: describeSnapshot(snap)})
	}
	return resp, nil
}

// listed is what a listing's filters leave.
func (s *controllerServer) listed(ctx context.Context, req *csi.ListSnapshotsRequest) ([]volume.Snapshot, error) {
	var of volume.ID
	if handle := req.GetSourceVolumeId(); handle != "" {
		// The volume may be gone while its snapshots stay: its ID will do.
		var err error
		if of, _, err = handleID(handle); err != nil {
			return nil, absent(err)
		}
	}
	var all []volume.Snapshot
	var err error
	if req.GetSnapshotId() == "" {
		all, err = s.snapshots.ListSnapshots(ctx)
	} else if id, idErr := snapshotID("snapshot_id", req.GetSnapshotId()); idErr == nil {
		var one volume.Snapshot
		if one, err = s.snapshots.GetSnapshot(ctx, id); err == nil {
			all = []volume.Snapshot{one}
		}
	}
	if err != nil {
		return nil, absent(err)
	}
	return slices.DeleteFunc(all, func(snap volume.Snapshot) bool { return of != "" && snap.Volume != of }), nil
}

func (s *controllerServer) GetSnapshot(ctx context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if s.snapshots == nil {
		return s.UnimplementedControllerServer.GetSnapshot(ctx, req)
	}
	id, err := snapshotID("snapshot_id", req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshots.GetSnapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: describeSnapshot(snap)}, nil
}

// content reads what a new volume is to start with.
func (s *controllerServer) content(ctx context.Context, source *csi.VolumeContentSource) (volume.Content, error) {
	var c volume.Content
	if source == nil {
		return c, nil
	}
	if s.snapshots == nil {
		return c, fmt.Errorf("%w: volume_content_source; neither snapshots nor clones are announced", volume.ErrUnsupported)
	}
	var err error
	switch t := source.GetType().(type) {
	case *csi.VolumeContentSource_Snapshot:
		c.Snapshot, err = snapshotID("snapshot_id", t.Snapshot.GetSnapshotId())
	case *csi.VolumeContentSource_Volume:
		c.Volume, err = resolve(ctx, s.volumes, t.Volume.GetVolumeId())
	default:
		err = fmt.Errorf("%w: volume_content_source names neither a snapshot nor a volume", volume.ErrInvalid)
	}
	if err != nil {
		err = fmt.Errorf("volume_content_source: %w", err)
	}
	return c, err
}

// sizeOf is the size of a volume that is to have the content and no size of
// its own: that of its source. A source that is gone is for Create to see,
// for the volume may have been made before.
func (s *controllerServer) sizeOf(ctx context.Context, c volume.Content, limit int64) (int64, error) {
	var size int64
	if c.Snapshot != "" {
		snap, err := s.snapshots.GetSnapshot(ctx, c.Snapshot)
		if absent(err) != nil {
			return 0, err
		}
		size = snap.Size
	} else {
		v, err := s.volumes.Get(ctx, c.Volume)
		if absent(err) != nil {
			return 0, err
		}
		size = v.Size
	}
	if limit > 0 && size > limit {
		return 0, fmt.Errorf("%w: the source has %d bytes and the volume may have %d", volume.ErrOutOfRange, size, limit)
	}
	return max(size, 1), nil
}

func contentSource(c volume.Content) *csi.VolumeContentSource {
	switch {
	case c.Snapshot != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: string(c.Snapshot)},
		}}
	case c.Volume != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: string(c.Volume)},
		}}
	}
	return nil
}

// describeSnapshot leaves out where a snapshot can be used: that is alpha, no
// sidecar looks at it, and csi-sanity 5.6.0 passes no driver that answers it.
func describeSnapshot(snap volume.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: string(snap.ID), SourceVolumeId: string(snap.Volume), GroupSnapshotId: string(snap.Group),
		SizeBytes: snap.Size, CreationTime: timestamppb.New(snap.CreatedAt), ReadyToUse: snap.Ready,
	}
}
