package driver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Modifier changes what may change in a volume's life.
type Modifier interface {
	// Modify gives a volume those attributes, all of them. ErrUnsupported
	// where its backend has no such attribute; then nothing is changed.
	Modify(ctx context.Context, id volume.ID, a volume.Attributes) (volume.Volume, error)
}

// ControllerModifyVolume: an empty mutable_parameters changes nothing and is
// no error, for a VolumeAttributesClass may have no parameters.
func (s *controllerServer) ControllerModifyVolume(ctx context.Context, req *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	if s.modifier == nil {
		return s.UnimplementedControllerServer.ControllerModifyVolume(ctx, req)
	}
	v, err := lookup(ctx, s.volumes, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	a, err := v.Attributes.With(req.GetMutableParameters())
	if err == nil && a != v.Attributes {
		_, err = s.modifier.Modify(ctx, v.ID, a)
	}
	if err != nil {
		return nil, fmt.Errorf("modify volume %s: %w", v.ID, err)
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}
