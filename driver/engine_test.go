package driver

import (
	"context"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestModify(t *testing.T) {
	for _, c := range []struct {
		name, id string
		params   map[string]string
		err      error
		code     codes.Code
		want     volume.Attributes // as the engine is asked; zero is not at all
	}{
		{"both", "vol", map[string]string{"inodeLimit": "1000", "softLimit": "90%"}, nil, codes.OK, volume.Attributes{Inodes: 1000, SoftLimit: 90}},
		{"what is not named stays", "vol", map[string]string{"inodeLimit": "0"}, nil, codes.OK, volume.Attributes{SoftLimit: 80}},
		{"nothing", "vol", nil, nil, codes.OK, volume.Attributes{}},
		{"as it is", "vol", map[string]string{"softLimit": "80%"}, nil, codes.OK, volume.Attributes{}},
		{"no number", "vol", map[string]string{"inodeLimit": "many"}, nil, codes.InvalidArgument, volume.Attributes{}},
		{"negative", "vol", map[string]string{"inodeLimit": "-1"}, nil, codes.InvalidArgument, volume.Attributes{}},
		{"no percentage", "vol", map[string]string{"softLimit": "90"}, nil, codes.InvalidArgument, volume.Attributes{}},
		{"above all", "vol", map[string]string{"softLimit": "101%"}, nil, codes.InvalidArgument, volume.Attributes{}},
		{"one good, one unknown", "vol", map[string]string{"inodeLimit": "5", "size": "1"}, nil, codes.InvalidArgument, volume.Attributes{}},
		{"no volume", "", nil, nil, codes.InvalidArgument, volume.Attributes{}},
		{"unknown volume", "other", nil, nil, codes.NotFound, volume.Attributes{}},
		{"not on this backend", "vol", map[string]string{"inodeLimit": "5"}, volume.ErrUnsupported, codes.InvalidArgument, volume.Attributes{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeEngine{err: c.err}
			s := &controllerServer{driver: testDriver, modifier: f, volumes: &fakeVolumes{volumes: map[volume.ID]volume.Volume{
				"vol": {Spec: volume.Spec{ID: "vol", Attributes: volume.Attributes{Inodes: 7, SoftLimit: 80}}},
			}}}
			_, err := s.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{VolumeId: c.id, MutableParameters: c.params})
			if (err == nil) != (c.code == codes.OK) || err != nil && code(err) != c.code {
				t.Errorf("got %v", err)
			}
			if c.err == nil && f.modified != c.want {
				t.Errorf("asked for %+v", f.modified)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	f := &fakeEngine{unhealthy: []volume.Health{
		{ID: "c", State: volume.Degraded, Reason: "A"}, {ID: "a", State: volume.Inaccessible, Reason: "B"}, {ID: "b", State: volume.DataLost, Reason: "C", Message: "gone"},
	}}
	v := &fakeVolumes{}
	s := &controllerServer{driver: testDriver, volumes: v, health: f}
	resp, err := s.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 2})
	if err != nil || len(resp.GetEntries()) != 2 || resp.GetEntries()[0].GetVolumeId() != "a" || resp.GetNextToken() != "after/b" {
		t.Errorf("list: %v, %v", resp, err)
	}
	if _, err := s.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{StartingToken: "x"}); code(err) != codes.Aborted {
		t.Errorf("no token of ours: %v", err)
	}
	node := &nodeServer{driver: testDriver, mounter: &fakeMounter{}, health: f}
	for id, want := range map[string]csi.VolumeHealthErrorType{
		"a": csi.VolumeHealthErrorType_INACCESSIBLE, "b": csi.VolumeHealthErrorType_DATA_LOSS, "c": csi.VolumeHealthErrorType_DEGRADED, "well": 0,
	} {
		one, err := s.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		two, nodeErr := node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: id})
		if err != nil || nodeErr != nil {
			t.Fatal(err, nodeErr)
		}
		for _, h := range []*csi.VolumeHealth{one.GetVolumeHealth(), two.GetVolumeHealth()} {
			if h.GetVolumeId() != id || (len(h.GetHealthStatuses()) == 0) != (want == 0) || want != 0 && (h.GetHealthStatuses()[0].GetStatus() != want || h.GetHealthStatuses()[0].GetReason() == "") {
				t.Errorf("%s: %v", id, h)
			}
		}
	}
	for id, want := range map[string]codes.Code{"": codes.InvalidArgument, "../a": codes.NotFound} {
		if _, err := s.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id}); code(err) != want {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestStorageHealth(t *testing.T) {
	f := &fakeEngine{pools: []volume.PoolStatus{
		{Name: "a", State: volume.PoolReady},
		{Name: "b", State: volume.PoolUnavailable, Reason: "NotMounted", Message: "mount it"},
		{Name: "c", State: volume.PoolReady, Reason: "Problems", Message: "volume x"},
		{Name: "d", State: volume.PoolUnavailable, Reason: "NotMounted", Message: "mount it, too"},
	}}
	resp, err := (&nodeServer{mounter: &fakeMounter{}, health: f}).NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
	got := resp.GetBackendHealth()
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	if got[0].GetStatus() != csi.StorageHealthErrorType_STORAGE_UNREACHABLE || got[0].GetReason() != "NotMounted" ||
		got[0].GetMessage() != "pool b: mount it; pool d: mount it, too" {
		t.Errorf("got %v", got[0])
	}
	if got[1].GetStatus() != csi.StorageHealthErrorType_STORAGE_DEGRADED || got[1].GetReason() != "Problems" {
		t.Errorf("got %v", got[1])
	}
}

// TestHandles: what is no ID is found by its record's name, and nowhere else.
func TestHandles(t *testing.T) {
	mine := volume.IDForName("My/Disk")
	kubelet := "csi-" + strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		handle          string
		stage, unstaged codes.Code
		id              volume.ID
	}{
		{"vol", codes.OK, codes.OK, "vol"},
		{"My/Disk", codes.OK, codes.OK, mine},
		{"my/disk", codes.NotFound, codes.OK, volume.IDForName("my/disk")},
		{kubelet, codes.NotFound, codes.OK, volume.IDForName(kubelet)},
		{"Renamed", codes.NotFound, codes.NotFound, ""},
		{"../vol", codes.NotFound, codes.NotFound, ""},
		{"a/../vol", codes.NotFound, codes.NotFound, ""},
		{"..", codes.NotFound, codes.NotFound, ""},
		{strings.Repeat("x", 129), codes.NotFound, codes.NotFound, ""},
		{"", codes.InvalidArgument, codes.InvalidArgument, ""},
	} {
		t.Run(c.handle, func(t *testing.T) {
			f := &fakeMounter{}
			f.volumes = map[volume.ID]volume.Volume{
				"vol": {Spec: volume.Spec{ID: "vol"}, Name: "vol"}, mine: {Spec: volume.Spec{ID: mine}, Name: "My/Disk"},
				volume.IDForName("Renamed"): {Name: "another"},
			}
			s := &nodeServer{driver: testDriver, mounter: f}
			_, err := s.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: c.handle, StagingTargetPath: "/s", VolumeCapability: single()})
			if (err == nil) != (c.stage == codes.OK) || err != nil && code(err) != c.stage || err == nil && f.id != c.id {
				t.Errorf("stage: %q, %v", f.id, err)
			}
			f.id = ""
			for name, call := range map[string]func(context.Context) error{
				"unstage": func(ctx context.Context) error {
					_, err := s.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: c.handle, StagingTargetPath: "/s"})
					return err
				},
				"unpublish": func(ctx context.Context) error {
					_, err := s.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: c.handle, TargetPath: "/t"})
					return err
				},
			} {
				err := call(t.Context())
				if (err == nil) != (c.unstaged == codes.OK) || err != nil && code(err) != c.unstaged || f.id != c.id {
					t.Errorf("%s: %q, %v", name, f.id, err)
				}
			}
		})
	}
}

func TestPublishEphemeral(t *testing.T) {
	type req = csi.NodePublishVolumeRequest
	handle := "csi-" + strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		name   string
		change func(*req)
		code   codes.Code
		size   int64
	}{
		{"the default", func(*req) {}, codes.OK, defaultSize},
		{"a size and a pool", func(r *req) { r.VolumeContext["size"], r.VolumeContext["pool"] = "5Gi", "fast" }, codes.OK, 5 << 30},
		{"what kubelet adds", func(r *req) { r.VolumeContext[inlinePod], r.VolumeContext[reservedPrefix+"pod.uid"] = "web-0", "x" }, codes.OK, defaultSize},
		{"no size", func(r *req) { r.VolumeContext["size"] = "big" }, codes.InvalidArgument, 0},
		{"nothing", func(r *req) { r.VolumeContext["size"] = "0" }, codes.InvalidArgument, 0},
		{"another key", func(r *req) { r.VolumeContext["onDelete"] = "scrub" }, codes.InvalidArgument, 0},
		{"no target", func(r *req) { r.TargetPath = "" }, codes.InvalidArgument, 0},
		{"climbs", func(r *req) { r.VolumeId = "../x" }, codes.NotFound, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeMounter{}
			r := &req{VolumeId: handle, TargetPath: "/t", VolumeCapability: capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, false, "xfs"),
				Readonly: true, VolumeContext: map[string]string{ephemeralKey: "true"}}
			c.change(r)
			_, err := (&nodeServer{driver: testDriver, mounter: f}).NodePublishVolume(t.Context(), r)
			if c.code != codes.OK {
				if err == nil || code(err) != c.code || f.target != "" {
					t.Errorf("got %v, published at %q", err, f.target)
				}
				return
			}
			a := f.asked
			if err != nil || f.target != "/t" || !f.use.ReadOnly || a.ID != volume.IDForName(handle) || a.Name != handle || !a.Ephemeral ||
				a.Size != c.size || a.FSType != "xfs" || a.Pool != r.VolumeContext["pool"] || a.Labels[inlinePod] != r.VolumeContext[inlinePod] {
				t.Errorf("got %v, asked %+v", err, a)
			}
		})
	}
}
