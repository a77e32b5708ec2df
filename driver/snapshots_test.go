package driver

import (
	"reflect"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/plinth-csi/plinth/driver/volume"
)

// snapServer serves the volumes vol on node-1 and v-… whose name is My/Disk,
// and the snapshots a, b, c (of vol) and d, e (of gone; e is in group g).
func snapServer() (*controllerServer, *fakeVolumes, *fakeSnapshots) {
	mine := volume.IDForName("My/Disk")
	v := &fakeVolumes{volumes: map[volume.ID]volume.Volume{
		"vol": {Spec: volume.Spec{ID: "vol", Size: 77}, Name: "vol", Node: "node-1"},
		mine:  {Spec: volume.Spec{ID: mine, Size: 78}, Name: "My/Disk", Node: "node-1"},
	}}
	s := &fakeSnapshots{snapshots: map[volume.ID]volume.Snapshot{
		"a": {ID: "a", Volume: "vol", Size: 5}, "b": {ID: "b", Volume: "vol"}, "c": {ID: "c", Volume: "vol"},
		"d": {ID: "d", Volume: "gone"}, "e": {ID: "e", Volume: "gone", Group: "g"},
	}}
	return &controllerServer{driver: testDriver, volumes: v, snapshots: s}, v, s
}

func TestCreateSnapshot(t *testing.T) {
	type req = csi.CreateSnapshotRequest
	for _, c := range []struct {
		name   string
		change func(*req)
		err    error // of the engine
		code   codes.Code
	}{
		{"good", func(*req) {}, nil, codes.OK},
		{"with what the sidecar adds", func(r *req) {
			r.Parameters = map[string]string{paramSnapshot: "snap", reservedPrefix + "other": "x"}
		}, nil, codes.OK},
		{"no name", func(r *req) { r.Name = "" }, nil, codes.InvalidArgument},
		{"long name", func(r *req) { r.Name = strings.Repeat("n", 129) }, nil, codes.InvalidArgument},
		{"no volume", func(r *req) { r.SourceVolumeId = "" }, nil, codes.InvalidArgument},
		{"unknown parameter", func(r *req) { r.Parameters = map[string]string{"keep": "7d"} }, nil, codes.InvalidArgument},
		{"unknown volume", func(r *req) { r.SourceVolumeId = "other" }, nil, codes.NotFound},
		{"no volume of ours", func(r *req) { r.SourceVolumeId = "../vol" }, nil, codes.NotFound},
		{"name taken", func(*req) {}, volume.ErrExists, codes.AlreadyExists},
		{"under way", func(*req) {}, volume.ErrBusy, codes.Aborted},
		{"no space", func(*req) {}, volume.ErrNoCapacity, codes.ResourceExhausted},
		{"attached where that matters", func(*req) {}, volume.ErrInUse, codes.FailedPrecondition},
		{"not there", func(*req) {}, volume.ErrUnsupported, codes.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, f := snapServer()
			f.err = c.err
			r := &req{Name: "snap-1", SourceVolumeId: "vol"}
			c.change(r)
			resp, err := s.CreateSnapshot(t.Context(), r)
			if c.code != codes.OK {
				if err == nil || code(err) != c.code || c.err == nil && f.asked.Name != "" {
					t.Errorf("got %v, asked %+v", err, f.asked)
				}
				return
			}
			got := resp.GetSnapshot()
			if err != nil || got.GetSnapshotId() != "snap-1" || got.GetSourceVolumeId() != "vol" || got.GetSizeBytes() != 10 || !got.GetReadyToUse() ||
				got.GetCreationTime() == nil {
				t.Errorf("got %v, %v", got, err)
			}
			if len(r.Parameters) > 0 && !reflect.DeepEqual(f.asked.Labels, map[string]string{paramSnapshot: "snap"}) {
				t.Errorf("labels %v", f.asked.Labels)
			}
		})
	}
}

// TestCreateSnapshotAgain: once taken, a snapshot answers to its name also
// when its volume is gone.
func TestCreateSnapshotAgain(t *testing.T) {
	s, _, _ := snapServer()
	resp, err := s.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "d", SourceVolumeId: "gone"})
	if err != nil || resp.GetSnapshot().GetSnapshotId() != "d" {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := s.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "d", SourceVolumeId: "other"}); code(err) != codes.NotFound {
		t.Errorf("of another volume: %v", err)
	}
}

func TestDeleteSnapshot(t *testing.T) {
	for _, c := range []struct {
		name, id string
		err      error
		code     codes.Code
		deleted  bool
	}{
		{"good", "a", nil, codes.OK, true},
		{"half made, or not there", "other", nil, codes.OK, true},
		{"no snapshot of ours", "../a", nil, codes.OK, false},
		{"no ID", "", nil, codes.InvalidArgument, false},
		{"in a group", "e", nil, codes.InvalidArgument, false},
		{"in use", "a", volume.ErrInUse, codes.FailedPrecondition, true},
		{"under way", "a", volume.ErrBusy, codes.Aborted, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, f := snapServer()
			f.err = c.err
			_, err := s.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: c.id})
			if (err == nil) != (c.code == codes.OK) || err != nil && code(err) != c.code || (len(f.deleted) > 0) != c.deleted {
				t.Errorf("got %v, deleted %v", err, f.deleted)
			}
		})
	}
}

func TestListSnapshots(t *testing.T) {
	for _, c := range []struct {
		name string
		req  *csi.ListSnapshotsRequest
		want string // the IDs; an error's code otherwise
		next string
	}{
		{"all", &csi.ListSnapshotsRequest{}, "abcde", ""},
		{"a page", &csi.ListSnapshotsRequest{MaxEntries: 2}, "ab", "after/b"},
		{"the next page", &csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: "after/b"}, "cd", "after/d"},
		{"the rest", &csi.ListSnapshotsRequest{StartingToken: "after/bb"}, "cde", ""},
		{"one", &csi.ListSnapshotsRequest{SnapshotId: "b"}, "b", ""},
		{"of a volume", &csi.ListSnapshotsRequest{SourceVolumeId: "vol", MaxEntries: 3}, "abc", ""},
		{"of a volume that is gone", &csi.ListSnapshotsRequest{SourceVolumeId: "gone"}, "de", ""},
		{"one, of another volume", &csi.ListSnapshotsRequest{SnapshotId: "b", SourceVolumeId: "gone"}, "", ""},
		{"unknown", &csi.ListSnapshotsRequest{SnapshotId: "other"}, "", ""},
		{"none of ours", &csi.ListSnapshotsRequest{SnapshotId: "../a"}, "", ""},
		{"of no volume of ours", &csi.ListSnapshotsRequest{SourceVolumeId: "../vol"}, "", ""},
		{"no token of ours", &csi.ListSnapshotsRequest{StartingToken: "x"}, "Aborted", ""},
		{"negative", &csi.ListSnapshotsRequest{MaxEntries: -1}, "InvalidArgument", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, _ := snapServer()
			resp, err := s.ListSnapshots(t.Context(), c.req)
			got := ""
			for _, e := range resp.GetEntries() {
				got += e.GetSnapshot().GetSnapshotId()
			}
			if err != nil {
				got = code(err).String()
			}
			if got != c.want || resp.GetNextToken() != c.next {
				t.Errorf("got %q, next %q", got, resp.GetNextToken())
			}
		})
	}
}

func TestGetSnapshot(t *testing.T) {
	for id, want := range map[string]codes.Code{"a": codes.OK, "other": codes.NotFound, "../a": codes.NotFound, "": codes.InvalidArgument} {
		s, _, _ := snapServer()
		resp, err := s.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id})
		if want == codes.OK && (err != nil || resp.GetSnapshot().GetSnapshotId() != id) || want != codes.OK && (err == nil || code(err) != want) {
			t.Errorf("%q: %v, %v", id, resp, err)
		}
	}
}

func TestCreateFrom(t *testing.T) {
	snapshot := func(id string) *csi.VolumeContentSource {
		return contentSource(volume.Content{Snapshot: volume.ID(id)})
	}
	clone := func(id string) *csi.VolumeContentSource {
		return contentSource(volume.Content{Volume: volume.ID(id)})
	}
	for _, c := range []struct {
		name            string
		source          *csi.VolumeContentSource
		required, limit int64
		err             error // of the engine
		code            codes.Code
		from            volume.Content
		size            int64
	}{
		{"a snapshot", snapshot("a"), 9, 0, nil, codes.OK, volume.Content{Snapshot: "a"}, 9},
		{"a snapshot, as large", snapshot("a"), 0, 0, nil, codes.OK, volume.Content{Snapshot: "a"}, 5},
		{"a volume, as large", clone("vol"), 0, 100, nil, codes.OK, volume.Content{Volume: "vol"}, 77},
		{"an administrator's volume", clone("My/Disk"), 0, 0, nil, codes.OK, volume.Content{Volume: volume.IDForName("My/Disk")}, 78},
		{"a snapshot that is gone, made before", snapshot("other"), 0, 0, nil, codes.OK, volume.Content{Snapshot: "other"}, 1},
		{"a snapshot that is gone", snapshot("other"), 5, 0, volume.ErrNotFound, codes.NotFound, volume.Content{}, 0},
		{"no snapshot of ours", snapshot("../a"), 5, 0, nil, codes.NotFound, volume.Content{}, 0},
		{"no volume of ours", clone("../vol"), 5, 0, nil, codes.NotFound, volume.Content{}, 0},
		{"too large", clone("vol"), 0, 76, nil, codes.OutOfRange, volume.Content{}, 0},
		{"too small", snapshot("a"), 4, 0, volume.ErrOutOfRange, codes.OutOfRange, volume.Content{}, 0},
		{"of another kind", snapshot("a"), 9, 0, volume.ErrUnsupported, codes.InvalidArgument, volume.Content{}, 0},
		{"made of something else", snapshot("a"), 9, 0, volume.ErrExists, codes.AlreadyExists, volume.Content{}, 0},
		{"nothing", &csi.VolumeContentSource{}, 9, 0, nil, codes.InvalidArgument, volume.Content{}, 0},
		{"a snapshot without ID", snapshotSource(""), 9, 0, nil, codes.InvalidArgument, volume.Content{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, v, _ := snapServer()
			if c.err != nil {
				s.volumes = &fakeVolumes{err: c.err}
			}
			resp, err := s.CreateVolume(t.Context(), createReq(func(r *csi.CreateVolumeRequest) {
				r.VolumeContentSource, r.CapacityRange = c.source, &csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit}
			}))
			if c.code != codes.OK {
				if err == nil || code(err) != c.code {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || v.asked.From != c.from || v.asked.Size != c.size || !reflect.DeepEqual(resp.GetVolume().GetContentSource(), contentSource(c.from)) {
				t.Errorf("got %v, %v, asked %+v", resp, err, v.asked)
			}
		})
	}
}

func snapshotSource(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}
