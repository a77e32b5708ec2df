//go:build root

package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

// call does what an op says: a call to CSI, or what a consumer does.
func (w *worker) call(ctx context.Context, o op) error {
	v := w.model.volumes[o.ID]
	var err error
	switch c := w.node.csi; o.Kind {
	case create:
		err = w.create(ctx, o)
	case remove:
		_, err = c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: o.ID})
	case expand:
		err = w.expand(ctx, o, v)
	case stage:
		if err := os.MkdirAll(filepath.Dir(w.staging(o.ID)), 0o750); err != nil {
			return err
		}
		_, err = c.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: o.ID, StagingTargetPath: w.staging(o.ID), VolumeCapability: capability(v.made)})
	case publish:
		_, err = c.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: o.ID, StagingTargetPath: w.staging(o.ID), TargetPath: w.target(o.ID), VolumeCapability: capability(v.made)})
	case unpublish:
		_, err = c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: o.ID, TargetPath: w.target(o.ID)})
	case unstage:
		_, err = c.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: o.ID, StagingTargetPath: w.staging(o.ID)})
	case write:
		if w.scribbles {
			err = scribble(v, w.target(o.ID), o.Seed)
		}
		if err != nil {
			return err
		}
		err = writeSlot(v, w.target(o.ID), o.Slot, o.Seed)
	case snapshot:
		err = w.snapshot(ctx, o)
	case unsnapshot:
		_, err = c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: o.ID})
	}
	return err
}

func (w *worker) create(ctx context.Context, o op) error {
	req := &csi.CreateVolumeRequest{
		Name: o.ID, Parameters: map[string]string{"pool": poolName},
		CapacityRange:      &csi.CapacityRange{RequiredBytes: o.Size},
		VolumeCapabilities: []*csi.VolumeCapability{capability(o)},
	}
	switch {
	case o.From == "":
	case o.Clone:
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: o.From}}}
	default:
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: o.From}}}
	}
	resp, err := w.node.csi.CreateVolume(ctx, req)
	if err != nil {
		return err
	}
	if got := resp.Volume; got.VolumeId != o.ID || got.CapacityBytes != o.Size {
		return fmt.Errorf("it made %s of %d bytes, asked were %d", got.VolumeId, got.CapacityBytes, o.Size)
	}
	return nil
}

// expand grows a volume as the resizer and kubelet do: the node too, where the
// controller says so and the volume is in use there.
func (w *worker) expand(ctx context.Context, o op, v *volumeState) error {
	r := &csi.CapacityRange{RequiredBytes: o.Size}
	resp, err := w.node.csi.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: o.ID, CapacityRange: r, VolumeCapability: capability(v.made)})
	if err != nil || !resp.NodeExpansionRequired || !v.published || v.made.FSType == "ext4" && !hasSysResource() {
		return err
	}
	_, err = w.node.csi.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: o.ID, VolumePath: w.target(o.ID), CapacityRange: r, VolumeCapability: capability(v.made)})
	return err
}

// snapshot takes one and waits until its bytes are there.
func (w *worker) snapshot(ctx context.Context, o op) error {
	for {
		resp, err := w.node.csi.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: o.ID, SourceVolumeId: o.From})
		if err != nil || resp.Snapshot.ReadyToUse {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hasSysResource reports whether ext4 lets this machine's processes grow it
// while it is mounted; where it does not, it grows when it is next staged.
func hasSysResource() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
