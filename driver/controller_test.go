package driver

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/plinth-csi/plinth/driver/volume"
)

func capability(mode csi.VolumeCapability_AccessMode_Mode, block bool, fsType string) *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}}
	}
	return c
}

func single() *csi.VolumeCapability {
	return capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, false, "")
}

func createReq(change func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
	r := &csi.CreateVolumeRequest{Name: "pvc-1", VolumeCapabilities: []*csi.VolumeCapability{single()}}
	change(r)
	return r
}

// TestCreateRefuses: each is InvalidArgument, or what else the table says, and
// names the fault; nothing is asked of the volumes.
func TestCreateRefuses(t *testing.T) {
	type req = csi.CreateVolumeRequest
	for _, c := range []struct {
		name   string
		change func(*req)
		code   codes.Code
		says   string
	}{
		{"no name", func(r *req) { r.Name = "" }, codes.InvalidArgument, "name is missing"},
		{"long name", func(r *req) { r.Name = strings.Repeat("n", 129) }, codes.InvalidArgument, "128"},
		{"no capabilities", func(r *req) { r.VolumeCapabilities = nil }, codes.InvalidArgument, "volume_capabilities"},
		{"no access type", func(r *req) { r.VolumeCapabilities[0].AccessType = nil }, codes.InvalidArgument, "access type"},
		{"no access mode", func(r *req) { r.VolumeCapabilities[0].AccessMode = nil }, codes.InvalidArgument, "access mode"},
		{"one writer among many nodes", func(r *req) {
			r.VolumeCapabilities[0] = capability(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER, false, "")
		}, codes.InvalidArgument, "MULTI_NODE_MULTI_WRITER"},
		{"block and mount", func(r *req) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, true, ""))
		}, codes.InvalidArgument, "different access types"},
		{"mount group", func(r *req) {
			r.VolumeCapabilities[0].GetMount().VolumeMountGroup = "1000"
		}, codes.InvalidArgument, "volume_mount_group"},
		{"negative size", func(r *req) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: -1} }, codes.InvalidArgument, "negative"},
		{"limit below size", func(r *req) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: 2, LimitBytes: 1} }, codes.InvalidArgument, "allows 1"},
		{"unknown parameter", func(r *req) { r.Parameters = map[string]string{"colour": "secret"} }, codes.InvalidArgument, "pool, volumeType, csi.storage.k8s.io/fstype, provisioning, onDelete, mkfsOptions, mode, owner"},
		{"local volume", func(r *req) { r.Parameters = map[string]string{"volumeType": "local"} }, codes.InvalidArgument, "makes csi volumes"},
		{"clone where there are none", func(r *req) { r.VolumeContentSource = &csi.VolumeContentSource{} }, codes.InvalidArgument, "neither snapshots nor clones"},
		{"mutable parameters", func(r *req) { r.MutableParameters = map[string]string{"a": "b"} }, codes.InvalidArgument, "inodeLimit and softLimit"},
		{"modifications where there are none", func(r *req) { r.MutableParameters = map[string]string{"inodeLimit": "5"} }, codes.InvalidArgument, "MODIFY_VOLUME"},
		{"control characters", func(r *req) { r.Name = "a\x00b" }, codes.InvalidArgument, "control characters"},
		{"neither thick nor thin", func(r *req) { r.Parameters = map[string]string{"provisioning": "medium"} }, codes.InvalidArgument, "thick nor thin"},
		{"an unknown end", func(r *req) { r.Parameters = map[string]string{"onDelete": "burn"} }, codes.InvalidArgument, "delete nor scrub"},
		{"a mode that is none", func(r *req) { r.Parameters = map[string]string{"mode": "rwx"} }, codes.InvalidArgument, "octal"},
		{"an owner by name", func(r *req) { r.Parameters = map[string]string{"owner": "me:us"} }, codes.InvalidArgument, "uid:gid"},
		{"topology of another driver", func(r *req) {
			r.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"zone": "a"}}}}
		}, codes.ResourceExhausted, "csi.plinth.dev/node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeVolumes{}
			_, err := (&controllerServer{driver: testDriver, volumes: f}).CreateVolume(t.Context(), createReq(c.change))
			if err == nil || code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v tells a parameter's value", err)
			}
			if f.asked.Name != "" {
				t.Errorf("it was asked for: %+v", f.asked)
			}
		})
	}
}

func TestCreateAsks(t *testing.T) {
	type req = csi.CreateVolumeRequest
	base := volume.Request{
		Spec: volume.Spec{ID: "pvc-1", Size: defaultSize, Mode: volume.Filesystem}, Name: "pvc-1",
		AccessModes: []volume.AccessMode{volume.ReadWriteOnce},
	}
	node := func(name string) *csi.Topology {
		return &csi.Topology{Segments: map[string]string{testDriver + "/node": name}}
	}
	for _, c := range []struct {
		name   string
		change func(*req)
		want   func(*volume.Request)
	}{
		{"nothing more", func(*req) {}, func(*volume.Request) {}},
		{"a range", func(r *req) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: 5, LimitBytes: 7} },
			func(r *volume.Request) { r.Size, r.LimitBytes = 5, 7 }},
		{"only a limit", func(r *req) { r.CapacityRange = &csi.CapacityRange{LimitBytes: 7} },
			func(r *volume.Request) { r.Size, r.LimitBytes = 7, 7 }},
		{"a high limit", func(r *req) { r.CapacityRange = &csi.CapacityRange{LimitBytes: 7 << 30} },
			func(r *volume.Request) { r.LimitBytes = 7 << 30 }},
		{"a pool and a claim", func(r *req) {
			r.Parameters = map[string]string{"pool": "a,b", "volumeType": "csi", "csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/other": "x"}
		}, func(r *volume.Request) {
			r.Pool, r.Labels = "a,b", map[string]string{"csi.storage.k8s.io/pvc/name": "data"}
		}},
		{"how it is made and deleted", func(r *req) {
			r.Parameters = map[string]string{"provisioning": "thick", "onDelete": "scrub", "mkfsOptions": " -i size=512  -K ", "mode": "0750", "owner": "7:8"}
		}, func(r *volume.Request) {
			r.Root = volume.Root{Mode: 0o750, UID: 7, GID: 8}
			r.Thick, r.OnDelete, r.MkfsOptions = true, volume.Scrub, []string{"-i", "size=512", "-K"}
		}},
		{"the defaults, said", func(r *req) {
			r.Parameters = map[string]string{"provisioning": "thin", "onDelete": "delete", "mkfsOptions": ""}
		}, func(r *volume.Request) { r.OnDelete = volume.Delete }},
		{"a filesystem by parameter", func(r *req) { r.Parameters = map[string]string{"csi.storage.k8s.io/fstype": "xfs"} },
			func(r *volume.Request) { r.FSType = "xfs" }},
		{"a filesystem by capability", func(r *req) {
			r.VolumeCapabilities[0] = capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, false, "ext4")
		}, func(r *volume.Request) {
			r.FSType, r.AccessModes = "ext4", []volume.AccessMode{volume.ReadWriteOncePod}
		}},
		{"block, with a filesystem that does not matter", func(r *req) {
			r.VolumeCapabilities[0] = capability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true, "")
			r.Parameters = map[string]string{"csi.storage.k8s.io/fstype": "xfs"}
		}, func(r *volume.Request) {
			r.Mode, r.AccessModes = volume.Block, []volume.AccessMode{volume.ReadWriteMany}
		}},
		{"nodes, best first and once", func(r *req) {
			r.AccessibilityRequirements = &csi.TopologyRequirement{Preferred: []*csi.Topology{node("b"), node("a")}, Requisite: []*csi.Topology{node("a"), node("b"), node("c")}}
		}, func(r *volume.Request) { r.Nodes = []string{"b", "a", "c"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeVolumes{}
			resp, err := (&controllerServer{driver: testDriver, volumes: f}).CreateVolume(t.Context(), createReq(c.change))
			if err != nil {
				t.Fatal(err)
			}
			want := base
			want.AccessModes = base.AccessModes
			c.want(&want)
			if !reflect.DeepEqual(f.asked, want) {
				t.Errorf("asked %+v\nwant  %+v", f.asked, want)
			}
			if v := resp.GetVolume(); v.GetVolumeId() != "pvc-1" || v.GetCapacityBytes() != want.Size ||
				v.GetAccessibleTopology()[0].GetSegments()[testDriver+"/node"] != "node-1" {
				t.Errorf("answered %v", v)
			}
		})
	}
}

func TestListPages(t *testing.T) {
	f := &fakeVolumes{volumes: map[volume.ID]volume.Volume{}}
	for _, id := range []volume.ID{"d", "a", "c", "b", "e"} {
		f.volumes[id] = volume.Volume{Spec: volume.Spec{ID: id}}
	}
	s := &controllerServer{driver: testDriver, volumes: f}
	var got []string
	token := ""
	for page := 0; ; page++ {
		resp, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEntries() {
			got = append(got, e.GetVolume().GetVolumeId())
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
		delete(f.volumes, volume.ID(got[len(got)-1])) // the token outlives its volume
	}
	if strings.Join(got, "") != "abcde" {
		t.Errorf("got %v", got)
	}
	for name, req := range map[string]*csi.ListVolumesRequest{
		"not ours": {StartingToken: "invalid-token"}, "climbs": {StartingToken: "after/../x"},
	} {
		if _, err := s.ListVolumes(t.Context(), req); code(err) != codes.Aborted {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1}); code(err) != codes.InvalidArgument {
		t.Errorf("negative: %v", err)
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct {
		name            string
		id              string
		required, limit int64
		code            codes.Code
		size            int64
		nodeToo         bool
	}{
		{"grows exactly", "fs", 12345, 0, codes.OK, 12345, true},
		{"a directory needs no node", "dir", 12345, 20000, codes.OK, 12345, false},
		{"there already", "fs", 5, 0, codes.OK, 10, true},
		{"larger than the limit", "fs", 5, 9, codes.OutOfRange, 0, false},
		{"no range", "fs", 0, 0, codes.InvalidArgument, 0, false},
		{"negative", "fs", -1, 0, codes.InvalidArgument, 0, false},
		{"unknown", "other", 5, 0, codes.NotFound, 0, false},
		{"no volume of ours", "../../etc", 5, 0, codes.NotFound, 0, false},
		{"no volume", "", 5, 0, codes.InvalidArgument, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeVolumes{volumes: map[volume.ID]volume.Volume{
				"fs":  {Spec: volume.Spec{ID: "fs", Size: 10, Mode: volume.Filesystem, FSType: "xfs"}},
				"dir": {Spec: volume.Spec{ID: "dir", Size: 10, Mode: volume.Filesystem}},
			}}
			resp, err := (&controllerServer{driver: testDriver, volumes: f}).ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
				VolumeId: c.id, CapacityRange: &csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit},
			})
			if c.code != codes.OK {
				if err == nil || code(err) != c.code {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || resp.GetCapacityBytes() != c.size || resp.GetNodeExpansionRequired() != c.nodeToo {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}

func TestValidateCapabilities(t *testing.T) {
	f := &fakeVolumes{volumes: map[volume.ID]volume.Volume{
		"a":      {Spec: volume.Spec{ID: "a", Mode: volume.Filesystem}, Node: "node-1", Pool: "fast"},
		"shared": {Spec: volume.Spec{ID: "shared", Mode: volume.Filesystem}, Pool: "nfs"},
	}}
	many := capability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, false, "")
	for _, c := range []struct {
		name, id string
		cap      *csi.VolumeCapability
		says     string // "" is confirmed
	}{
		{"what it is", "a", single(), ""},
		{"block", "a", capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, true, ""), "Filesystem volume"},
		{"many nodes", "a", many, "use a shared pool"},
		{"many nodes on a shared pool", "shared", many, ""},
		{"another filesystem", "a", capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, false, "ext4"), "ext4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, err := (&controllerServer{driver: testDriver, volumes: f}).ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
				VolumeId: c.id, VolumeCapabilities: []*csi.VolumeCapability{c.cap},
			})
			if err != nil || (resp.GetConfirmed() != nil) != (c.says == "") || !strings.Contains(resp.GetMessage(), c.says) {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}

func TestGetCapacity(t *testing.T) {
	f := &fakeVolumes{space: volume.Space{Available: 100, Max: 60, Min: 5}}
	s := &controllerServer{driver: testDriver, volumes: f}
	resp, err := s.GetCapacity(context.Background(), &csi.GetCapacityRequest{
		Parameters:         map[string]string{"pool": "fast"},
		AccessibleTopology: &csi.Topology{Segments: map[string]string{testDriver + "/node": "node-1"}},
	})
	if err != nil || resp.GetAvailableCapacity() != 100 || resp.GetMaximumVolumeSize().GetValue() != 60 || resp.GetMinimumVolumeSize().GetValue() != 5 {
		t.Errorf("got %v, %v", resp, err)
	}
	if f.asked.Pool != "fast" || !reflect.DeepEqual(f.asked.Nodes, []string{"node-1"}) {
		t.Errorf("asked %+v", f.asked)
	}
	if _, err := s.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: map[string]string{"x": "y"}}); code(err) != codes.InvalidArgument {
		t.Errorf("unknown parameter: %v", err)
	}
}
