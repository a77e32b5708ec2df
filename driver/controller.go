package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// errToken: the starting token of a listing is not one of ours (CSI 1.13,
// ListVolumes: ABORTED tells the caller to start again).
var errToken = errors.New("invalid starting token")

// tokenPrefix tells a token from anything else; the ID of the last volume
// listed follows it, so a page starts right also when that volume is gone.
const tokenPrefix = "after/"

// controllerServer is the CSI Controller service.
type controllerServer struct {
	csi.UnimplementedControllerServer
	driver  string
	volumes Volumes
}

func (s *controllerServer) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
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
	v, err := s.volumes.Create(ctx, r)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: s.describe(v)}, nil
}

func (s *controllerServer) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if errors.Is(err, volume.ErrNotFound) {
		return &csi.DeleteVolumeResponse{}, nil // no volume of ours has such an ID
	}
	if err == nil {
		err = s.volumes.Delete(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (s *controllerServer) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	use, err := uses(req.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	v, err := s.volumes.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, u := range use {
		if err := compatible(v, u); err != nil {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
		}
	}
	if _, err := parseParameters(req.GetParameters()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      req.GetVolumeContext(),
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
	}}, nil
}

func (s *controllerServer) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if req.GetMaxEntries() < 0 {
		return nil, fmt.Errorf("%w: max_entries %d is negative", volume.ErrInvalid, req.GetMaxEntries())
	}
	after, err := parseToken(req.GetStartingToken())
	if err != nil {
		return nil, err
	}
	all, err := s.volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b volume.Volume) int { return cmp.Compare(a.ID, b.ID) })
	resp := &csi.ListVolumesResponse{}
	for _, v := range all {
		if v.ID <= after {
			continue
		}
		if n := len(resp.Entries); n > 0 && n == int(req.GetMaxEntries()) {
			resp.NextToken = tokenPrefix + resp.Entries[n-1].Volume.VolumeId
			break
		}
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
	id, err := volumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size, limit, err := expandRange(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	v, err := s.volumes.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if limit > 0 && v.Size > limit {
		return nil, fmt.Errorf("%w: volume %s has %d bytes, more than the limit of %d, and volumes never shrink", volume.ErrOutOfRange, id, v.Size, limit)
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
	if v, err = s.volumes.Expand(ctx, id, size); err != nil {
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
	out := &csi.Volume{VolumeId: string(v.ID), CapacityBytes: v.Size}
	if v.Node != "" {
		out.AccessibleTopology = []*csi.Topology{{Segments: map[string]string{topologyKey(s.driver): v.Node}}}
	}
	return out
}

func parseToken(token string) (volume.ID, error) {
	if token == "" {
		return "", nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok {
		return "", fmt.Errorf("%w: start the listing again without one", errToken)
	}
	id, err := volume.ParseID(after)
	if err != nil {
		return "", fmt.Errorf("%w: start the listing again without one", errToken)
	}
	return id, nil
}
