package driver

import (
	"context"
	"errors"
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
	// Get returns a volume as its record tells it; ErrNotFound without one.
	Get(ctx context.Context, id volume.ID) (volume.Volume, error)
	// PublishEphemeral makes a volume for one pod and gives it to it at
	// target; Unpublish deletes it. ErrExists if the name is that of another
	// volume, ErrInUse if it is at another target already.
	PublishEphemeral(ctx context.Context, id volume.ID, target string, u volume.Use, r volume.Request) error
}

// nodeServer is the CSI Node service.
type nodeServer struct {
	csi.UnimplementedNodeServer
	driver, node string
	mounter      Mounter
	health       Health // nil: without the health RPCs
}

func (s *nodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	can := []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if s.health != nil {
		can = append(can, csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH, csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH)
	}
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range can {
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
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	use, err := parseUse(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	id, err := resolve(ctx, s.mounter, req.GetVolumeId())
	if err != nil {
		return nil, s.notHere(err)
	}
	// What a single consumer may not write is decided when it is published.
	use.ReadOnly = false
	if err := s.mounter.Stage(ctx, id, staging, use); err != nil {
		return nil, s.notHere(err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// notHere says what a volume that this node does not have may be for.
func (s *nodeServer) notHere(err error) error {
	if !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w: no pool of node %s has it; the handle is wrong, or the volume is on another node and its consumer has to run there", err, s.node)
}

func (s *nodeServer) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	id, err := release(ctx, s.mounter, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := s.mounter.Unstage(ctx, id, staging); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (s *nodeServer) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	target, err := absolute("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	use, err := parseUse(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	use.ReadOnly = use.ReadOnly || req.GetReadonly()
	if req.GetVolumeContext()[ephemeralKey] == "true" {
		err = s.publishEphemeral(ctx, req, target, use)
	} else {
		err = s.publish(ctx, req, target, use)
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *nodeServer) publish(ctx context.Context, req *csi.NodePublishVolumeRequest, target string, use volume.Use) error {
	id, err := resolve(ctx, s.mounter, req.GetVolumeId())
	if err != nil {
		return err
	}
	if req.GetStagingTargetPath() == "" {
		return fmt.Errorf("volume %s: staging_target_path is missing: %w", id, volume.ErrNotStaged)
	}
	staging, err := absolute("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return err
	}
	return s.mounter.Publish(ctx, id, staging, target, use)
}

// publishEphemeral is for a volume that a pod spells out itself. Its handle is
// kubelet's and becomes its name.
func (s *nodeServer) publishEphemeral(ctx context.Context, req *csi.NodePublishVolumeRequest, target string, use volume.Use) error {
	r, err := inlineRequest(req.GetVolumeId(), use, req.GetVolumeContext())
	if err != nil {
		return err
	}
	return s.mounter.PublishEphemeral(ctx, r.ID, target, use, r)
}

func (s *nodeServer) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	target, err := absolute("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	id, err := release(ctx, s.mounter, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := s.mounter.Unpublish(ctx, id, target); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (s *nodeServer) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	v, path, err := s.volumeAtPath(ctx, req)
	if err != nil {
		return nil, err
	}
	u, err := s.mounter.Stats(ctx, v.ID, path)
	if err != nil {
		return nil, err
	}
	if v.Mode == volume.Block {
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
	if _, _, err := checkRange(req.GetCapacityRange()); err != nil {
		return nil, err
	}
	v, path, err := s.volumeAtPath(ctx, req)
	if err != nil {
		return nil, err
	}
	size, err := s.mounter.Expand(ctx, v.ID, path)
	if err != nil {
		return nil, err
	}
	if asked := req.GetCapacityRange().GetRequiredBytes(); asked > size {
		return nil, fmt.Errorf("%w: volume %s has %d bytes and %d are asked; expand it at the controller first", volume.ErrOutOfRange, v.ID, size, asked)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

// volumeAtPath reads a request that looks at a volume where it is. Such a
// path is looked up among the mounts and never made, so a relative one is one
// where the volume is not.
func (s *nodeServer) volumeAtPath(ctx context.Context, req interface {
	GetVolumeId() string
	GetVolumePath() string
}) (volume.Volume, string, error) {
	if req.GetVolumePath() == "" {
		return volume.Volume{}, "", fmt.Errorf("%w: volume_path is missing", volume.ErrInvalid)
	}
	v, err := lookup(ctx, s.mounter, req.GetVolumeId())
	return v, req.GetVolumePath(), err
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
