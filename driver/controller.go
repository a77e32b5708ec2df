package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Volumes is what the controller service asks for. In standalone it is the
// node's own pools; in a cluster it is the ledger, whose agents do the work.
// Every method may be called again after any cut. Errors wrap the sentinels
// of driver/volume.
type Volumes interface {
	// Create makes a volume or finds the one of that name. ErrExists if the
	// name is taken by a volume that the request does not describe.
	Create(ctx context.Context, r volume.Request) (volume.Volume, error)
	// Delete returns once the bytes are free; a volume that is not there is no error.
	Delete(ctx context.Context, id volume.ID) error
	// Get returns ErrNotFound for a volume that no record tells of.
	Get(ctx context.Context, id volume.ID) (volume.Volume, error)
	// List gives all volumes, in any order.
	List(ctx context.Context) ([]volume.Volume, error)
	// Expand grows a volume to size bytes; one of that size or more stays as it is.
	Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error)
	// Space says what could be provisioned for such a request now. Nothing
	// that fits is an answer of zero, not an error.
	Space(ctx context.Context, r volume.Request) (volume.Space, error)
}

// controllerServer is the CSI Controller service.
type controllerServer struct {
	csi.UnimplementedControllerServer
	driver    string
	volumes   Volumes
	snapshots Snapshots // nil: neither snapshots nor clones
	modifier  Modifier  // nil: nothing can be modified
	health    Health    // nil: without the health RPCs
}

func (s *controllerServer) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	can := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if s.snapshots != nil {
		can = append(can, csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS, csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	if s.modifier != nil {
		can = append(can, csi.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	}
	if s.health != nil {
		can = append(can, csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH, csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH)
	}
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range can {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

func (s *controllerServer) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	r, err := createRequest(s.driver, req)
	if err != nil {
		return nil, err
	}
	if len(req.GetMutableParameters()) > 0 && s.modifier == nil {
		return nil, fmt.Errorf("%w: mutable_parameters; the capability MODIFY_VOLUME is not announced", volume.ErrUnsupported)
	}
	if r.From, err = s.content(ctx, req.GetVolumeContentSource()); err != nil {
		return nil, err
	}
	if r.From != (volume.Content{}) && req.GetCapacityRange().GetRequiredBytes() == 0 {
		if r.Size, err = s.sizeOf(ctx, r.From, r.LimitBytes); err != nil {
			return nil, err
		}
	}
	v, err := s.volumes.Create(ctx, r)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: s.describe(v)}, nil
}

// DeleteVolume: no volume of a handle is no error (CSI 1.13).
func (s *controllerServer) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id, err := resolve(ctx, s.volumes, req.GetVolumeId())
	if err == nil {
		err = s.volumes.Delete(ctx, id)
	}
	if err := absent(err); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (s *controllerServer) ControllerGetVolume(ctx context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	v, err := lookup(ctx, s.volumes, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{Volume: s.describe(v), Status: &csi.ControllerGetVolumeResponse_VolumeStatus{}}, nil
}

func (s *controllerServer) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fmt.Errorf("%w: volume_id is missing", volume.ErrInvalid)
	}
	use, err := uses(req.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	v, err := lookup(ctx, s.volumes, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	for _, u := range use {
		if err := compatible(v, u); err != nil {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
		}
	}
	_, err = parseParameters(req.GetParameters())
	if err == nil {
		_, err = v.Attributes.With(req.GetMutableParameters())
	}
	if err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      req.GetVolumeContext(),
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
		MutableParameters:  req.GetMutableParameters(),
	}}, nil
}

func (s *controllerServer) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := s.volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	part, next, err := page(req, all, func(v volume.Volume) volume.ID { return v.ID })
	if err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range part {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: s.describe(v)})
	}
	return resp, nil
}

func (s *controllerServer) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	r, err := capacityRequest(s.driver, req)
	if err != nil {
		return nil, err
	}
	space, err := s.volumes.Space(ctx, r)
	if err != nil {
		return nil, err
	}
	resp := &csi.GetCapacityResponse{AvailableCapacity: space.Available, MaximumVolumeSize: wrapperspb.Int64(space.Max)}
	if space.Min > 0 {
		resp.MinimumVolumeSize = wrapperspb.Int64(space.Min)
	}
	return resp, nil
}

func (s *controllerServer) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fmt.Errorf("%w: volume_id is missing", volume.ErrInvalid)
	}
	size, limit, err := expandRange(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	v, err := lookup(ctx, s.volumes, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if limit > 0 && v.Size > limit {
		return nil, fmt.Errorf("%w: volume %s has %d bytes, more than the limit of %d, and volumes never shrink", volume.ErrOutOfRange, v.ID, v.Size, limit)
	}
	if c := req.GetVolumeCapability(); c != nil {
		use, err := parseUse(c)
		if err == nil {
			err = compatible(v, use)
		}
		if err != nil {
			return nil, err
		}
	}
	v, err = s.volumes.Expand(ctx, v.ID, size)
	if errors.Is(err, volume.ErrNoCapacity) {
		// RESOURCE_EXHAUSTED would say that the growth may still be under way,
		// and the resizer would insist on it when the user asks for less
		// (CSI 1.13, ControllerExpandVolume; KEP-1790).
		err = fmt.Errorf("%w: %w", volume.ErrOutOfRange, err)
	}
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes: v.Size,
		// A directory or a device grows at once; a filesystem on a device has
		// to be grown where it is mounted.
		NodeExpansionRequired: v.Mode == volume.Filesystem && v.FSType != "",
	}, nil
}

func (s *controllerServer) describe(v volume.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId: string(v.ID), CapacityBytes: v.Size,
		ContentSource: contentSource(v.From), AccessibleTopology: accessible(s.driver, v.Node),
	}
}

// accessible is the topology of what lives on a node; "" is every node.
func accessible(driver, node string) []*csi.Topology {
	if node == "" {
		return nil
	}
	return []*csi.Topology{{Segments: map[string]string{topologyKey(driver): node}}}
}
