package driver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestPublishRequests(t *testing.T) {
	type req = csi.NodePublishVolumeRequest
	reader := capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, false, "")
	for _, c := range []struct {
		name   string
		change func(*req)
		code   codes.Code
		ro     bool
	}{
		{"good", func(*req) {}, codes.OK, false},
		{"read-only", func(r *req) { r.Readonly = true }, codes.OK, true},
		{"a reader", func(r *req) { r.VolumeCapability = reader }, codes.OK, true},
		{"no volume", func(r *req) { r.VolumeId = "" }, codes.InvalidArgument, false},
		{"no volume of ours", func(r *req) { r.VolumeId = "../../var" }, codes.NotFound, false},
		{"no target", func(r *req) { r.TargetPath = "" }, codes.InvalidArgument, false},
		{"relative target", func(r *req) { r.TargetPath = "a/b" }, codes.InvalidArgument, false},
		{"target climbs", func(r *req) { r.TargetPath = "/a/../b" }, codes.InvalidArgument, false},
		{"root as target", func(r *req) { r.TargetPath = "/" }, codes.InvalidArgument, false},
		{"no capability", func(r *req) { r.VolumeCapability = nil }, codes.InvalidArgument, false},
		{"not staged", func(r *req) { r.StagingTargetPath = "" }, codes.FailedPrecondition, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeMounter{}
			r := &req{VolumeId: "pvc-1", TargetPath: "/t", StagingTargetPath: "/s", VolumeCapability: single()}
			c.change(r)
			_, err := (&nodeServer{driver: testDriver, node: "node-1", mounter: f}).NodePublishVolume(t.Context(), r)
			if c.code != codes.OK {
				if err == nil || code(err) != c.code || f.target != "" {
					t.Errorf("got %v, published at %q", err, f.target)
				}
				return
			}
			if err != nil || f.target != "/t" || f.staging != "/s" || f.use.ReadOnly != c.ro {
				t.Errorf("got %v, %+v", err, f)
			}
		})
	}
}

func TestStatsAndExpand(t *testing.T) {
	f := &fakeMounter{usage: volume.Usage{TotalBytes: 10, UsedBytes: 4, AvailableBytes: 6, TotalInodes: 3}}
	f.volumes = map[volume.ID]volume.Volume{
		"fs":  {Spec: volume.Spec{ID: "fs", Size: 10, Mode: volume.Filesystem}},
		"dev": {Spec: volume.Spec{ID: "dev", Size: 10, Mode: volume.Block}},
	}
	s := &nodeServer{driver: testDriver, node: "node-1", mounter: f}
	for id, units := range map[string]int{"fs": 2, "dev": 1} {
		resp, err := s.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: "/t"})
		if err != nil || len(resp.GetUsage()) != units || resp.GetUsage()[0].GetTotal() != 10 {
			t.Errorf("%s: %v, %v", id, resp, err)
		}
	}
	for _, c := range []struct {
		name, id, path string
		required       int64
		code           codes.Code
	}{
		{"good", "fs", "/t", 10, codes.OK}, {"no range", "fs", "/t", 0, codes.OK}, {"more than it has", "fs", "/t", 11, codes.OutOfRange},
		{"unknown", "other", "some/path", 0, codes.NotFound}, {"no path", "fs", "", 0, codes.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
				VolumeId: c.id, VolumePath: c.path, CapacityRange: &csi.CapacityRange{RequiredBytes: c.required},
			})
			if (err == nil) != (c.code == codes.OK) || err != nil && code(err) != c.code {
				t.Errorf("got %v", err)
			}
		})
	}
}
