package driver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Health says how well volumes and pools are.
type Health interface {
	// Health is that of one volume; ErrNotFound if there certainly is none.
	Health(ctx context.Context, id volume.ID) (volume.Health, error)
	// Unhealthy are the volumes that are not, in any order.
	Unhealthy(ctx context.Context) ([]volume.Health, error)
	// Pools is the state of every pool.
	Pools(ctx context.Context) []volume.PoolStatus
}

func (s *controllerServer) ControllerGetVolumeHealth(ctx context.Context, req *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if s.health == nil {
		return s.UnimplementedControllerServer.ControllerGetVolumeHealth(ctx, req)
	}
	h, err := volumeHealth(ctx, s.volumes, s.health, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: h}, nil
}

func (s *controllerServer) ControllerListVolumeHealth(ctx context.Context, req *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	if s.health == nil {
		return s.UnimplementedControllerServer.ControllerListVolumeHealth(ctx, req)
	}
	all, err := s.health.Unhealthy(ctx)
	if err != nil {
		return nil, err
	}
	part, next, err := page(req, all, func(h volume.Health) volume.ID { return h.ID })
	if err != nil {
		return nil, err
	}
	resp := &csi.ControllerListVolumeHealthResponse{NextToken: next}
	for _, h := range part {
		resp.Entries = append(resp.Entries, describeHealth(string(h.ID), h))
	}
	return resp, nil
}

func (s *nodeServer) NodeGetVolumeHealth(ctx context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if s.health == nil {
		return s.UnimplementedNodeServer.NodeGetVolumeHealth(ctx, req)
	}
	h, err := volumeHealth(ctx, s.mounter, s.health, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: h}, nil
}

// volumeHealth looks a volume up by its handle. One whose record cannot be
// read is found by its ID only.
func volumeHealth(ctx context.Context, in records, health Health, handle string) (*csi.VolumeHealth, error) {
	id, err := resolve(ctx, in, handle)
	if err != nil {
		return nil, err
	}
	h, err := health.Health(ctx, id)
	if err != nil {
		return nil, err
	}
	return describeHealth(handle, h), nil
}

func describeHealth(handle string, h volume.Health) *csi.VolumeHealth {
	out := &csi.VolumeHealth{VolumeId: handle}
	if h.State == volume.Healthy {
		return out
	}
	status := csi.VolumeHealthErrorType_INACCESSIBLE
	switch h.State {
	case volume.Degraded:
		status = csi.VolumeHealthErrorType_DEGRADED
	case volume.DataLost:
		status = csi.VolumeHealthErrorType_DATA_LOSS
	}
	out.HealthStatuses = []*csi.VolumeHealth_VolumeHealthEntry{{Status: status, Reason: h.Reason, Message: h.Message}}
	return out
}

// NodeGetStorageHealth has an entry for each way in which pools are not well,
// which names the pools (CSI 1.13: no two entries of one status and reason).
func (s *nodeServer) NodeGetStorageHealth(ctx context.Context, req *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	if s.health == nil {
		return s.UnimplementedNodeServer.NodeGetStorageHealth(ctx, req)
	}
	type kind struct {
		status csi.StorageHealthErrorType
		reason string
	}
	entries := map[kind]*csi.NodeGetStorageHealthResponse_StorageBackendHealth{}
	resp := &csi.NodeGetStorageHealthResponse{}
	for _, p := range s.health.Pools(ctx) {
		k := kind{csi.StorageHealthErrorType_STORAGE_DEGRADED, p.Reason}
		if p.State != volume.PoolReady {
			k.status = csi.StorageHealthErrorType_STORAGE_UNREACHABLE
		} else if p.Message == "" {
			continue
		}
		message := fmt.Sprintf("pool %s: %s", p.Name, p.Message)
		if e := entries[k]; e != nil {
			e.Message += "; " + message
			continue
		}
		entries[k] = &csi.NodeGetStorageHealthResponse_StorageBackendHealth{Status: k.status, Reason: k.reason, Message: message}
		resp.BackendHealth = append(resp.BackendHealth, entries[k])
	}
	return resp, nil
}
