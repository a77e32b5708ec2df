//go:build root

package crash

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// client is CSI over one connection.
type client struct {
	csi.ControllerClient
	csi.NodeClient
	csi.IdentityClient
	conn *grpc.ClientConn
}

func dial(endpoint string) (*client, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond},
			MinConnectTimeout: startTimeout, // or what a connection may take is no longer than the backoff
		}))
	if err != nil {
		return nil, err
	}
	return &client{csi.NewControllerClient(conn), csi.NewNodeClient(conn), csi.NewIdentityClient(conn), conn}, nil
}

func capability(o op) *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	if o.Block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: o.FSType}}
	}
	return c
}

// listed is a volume or snapshot as a listing tells of it.
type listed struct {
	size  int64
	ready bool
}

func (c *client) volumes(ctx context.Context) (map[string]listed, error) {
	resp, err := c.ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	out := map[string]listed{}
	for _, e := range resp.Entries {
		out[e.Volume.VolumeId] = listed{size: e.Volume.CapacityBytes, ready: true}
	}
	return out, nil
}

func (c *client) snapshots(ctx context.Context) (map[string]listed, error) {
	resp, err := c.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	out := map[string]listed{}
	for _, e := range resp.Entries {
		out[e.Snapshot.SnapshotId] = listed{size: e.Snapshot.SizeBytes, ready: e.Snapshot.ReadyToUse}
	}
	return out, nil
}

// capacity is what is left to provision in the pool, in bytes.
func (c *client) capacity(ctx context.Context) (int64, error) {
	resp, err := c.GetCapacity(ctx, &csi.GetCapacityRequest{Parameters: map[string]string{"pool": poolName}})
	if err != nil {
		return 0, fmt.Errorf("capacity: %w", err)
	}
	return resp.AvailableCapacity, nil
}
