package driver

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Mounter is what the node service asks for. Every method may be called again
// after any cut and finishes what was begun. Paths are absolute and clean.
// Errors wrap the sentinels of driver/volume: ErrNotFound for a volume that no
// record tells of, ErrExists where something else is at that path already,
// ErrInUse while other paths still hold the volume.
type Mounter interface {
	// Stage makes the volume ready at a path that only this node's kubelet uses.
	Stage(ctx context.Context, id volume.ID, staging string, u volume.Use) error
	// Unstage undoes Stage; nothing staged there is no error.
	Unstage(ctx context.Context, id volume.ID, staging string) error
	// Publish gives a staged volume to one consumer at target. ErrNotStaged
	// if it is not at staging, ErrInUse if it is ReadWriteOncePod and another
	// consumer has it.
	Publish(ctx context.Context, id volume.ID, staging, target string, u volume.Use) error
	// Unpublish undoes Publish and removes target; nothing there is no error.
	Unpublish(ctx context.Context, id volume.ID, target string) error
	// Stats counts the volume seen at path; ErrNotFound if it is not there.
	Stats(ctx context.Context, id volume.ID, path string) (volume.Usage, error)
	// Expand brings what is mounted at path to the size of the volume, which
	// it returns in bytes.
	Expand(ctx context.Context, id volume.ID, path string) (int64, error)
	// Mode says how a volume is seen; ErrNotFound without a record.
	Mode(ctx context.Context, id volume.ID) (volume.Mode, error)
}

// nodeServer is the CSI Node service.
type nodeServer struct {
	csi.UnimplementedNodeServer
	driver, node string
	mounter      Mounter
}

func (s *nodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

func (s *nodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             s.node,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{topologyKey(s.driver): s.node}},
	}, nil
}

func (s *nodeServer) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	use, err := parseUse(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	// What a single consumer may not write is decided when it is published.
	use.ReadOnly = false
	if err := s.mounter.Stage(ctx, id, staging, use); err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (s *nodeServer) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	if err := s.mounter.Unstage(ctx, id, staging); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (s *nodeServer) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	target, err := absolute("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	use, err := parseUse(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if req.GetVolumeContext()[ephemeralKey] == "true" {
		return nil, fmt.Errorf("%w: inline ephemeral volumes; use a generic ephemeral volume with a claim template", volume.ErrUnsupported)
	}
	if req.GetStagingTargetPath() == "" {
		return nil, fmt.Errorf("volume %s: staging_target_path is missing: %w", id, volume.ErrNotStaged)
	}
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	use.ReadOnly = use.ReadOnly || req.GetReadonly()
	if err := s.mounter.Publish(ctx, id, staging, target, use); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *nodeServer) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	target, err := absolute("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	if err := s.mounter.Unpublish(ctx, id, target); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (s *nodeServer) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	id, path, err := volumeAtPath(req)
	if err != nil {
		return nil, err
	}
	mode, err := s.mounter.Mode(ctx, id)
	if err != nil {
		return nil, err
	}
	u, err := s.mounter.Stats(ctx, id, path)
	if err != nil {
		return nil, err
	}
	if mode == volume.Block {
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: u.TotalBytes}}}, nil
	}
	resp := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: u.TotalBytes, Used: u.UsedBytes, Available: u.AvailableBytes},
	}}
	if u.TotalInodes > 0 || u.UsedInodes > 0 {
		resp.Usage = append(resp.Usage, &csi.VolumeUsage{
			Unit: csi.VolumeUsage_INODES, Total: u.TotalInodes, Used: u.UsedInodes, Available: u.AvailableInodes,
		})
	}
	return resp, nil
}

func (s *nodeServer) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	id, path, err := volumeAtPath(req)
	if err != nil {
		return nil, err
	}
	if _, _, err := checkRange(req.GetCapacityRange()); err != nil {
		return nil, err
	}
	if _, err := s.mounter.Mode(ctx, id); err != nil {
		return nil, err
	}
	size, err := s.mounter.Expand(ctx, id, path)
	if err != nil {
		return nil, err
	}
	if asked := req.GetCapacityRange().GetRequiredBytes(); asked > size {
		return nil, fmt.Errorf("%w: volume %s has %d bytes and %d are asked; expand it at the controller first", volume.ErrOutOfRange, id, size, asked)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

// volumeAtPath reads a request that looks at a volume where it is. Such a
// path is looked up among the mounts and never made, so a relative one is one
// where the volume is not.
func volumeAtPath(req interface {
	GetVolumeId() string
	GetVolumePath() string
}) (volume.ID, string, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return "", "", err
	}
	if req.GetVolumePath() == "" {
		return "", "", fmt.Errorf("%w: volume_path is missing", volume.ErrInvalid)
	}
	return id, req.GetVolumePath(), nil
}

// absolute checks a path that the caller chose. It comes from kubelet over a
// socket that only root reaches; the check keeps mistakes out, not attackers.
func absolute(field, path string) (string, error) {
	switch {
	case path == "":
		return "", fmt.Errorf("%w: %s is missing", volume.ErrInvalid, field)
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return "", fmt.Errorf("%w: %s %.200q is not an absolute, clean path", volume.ErrInvalid, field, path)
	}
	return path, nil
}
