package driver_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/plinth-csi/plinth/driver"
	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/pool"
	"github.com/plinth-csi/plinth/driver/volume"
)

// FuzzRequests gives any bytes to any handler, over an engine that keeps its
// volumes in memory. No handler panics; every error has a code of the table in
// errors.go; nothing beside the pool is touched; what reaches the mounter is a
// legal ID and a clean path.
func FuzzRequests(f *testing.F) {
	for n, seed := range seeds() {
		f.Add(uint8(n), marshal(f, seed))
	}
	f.Add(uint8(0), []byte{0xff})
	parent := f.TempDir()
	var now served
	f.Cleanup(func() { now.close() })
	f.Fuzz(func(t *testing.T, n uint8, data []byte) {
		if now.calls%callsOfOne == 0 {
			now.close()
			dir, err := os.MkdirTemp(parent, "")
			if err != nil {
				t.Fatal(err)
			}
			now = serve(t, dir)
		}
		now.calls++
		now.mounter.t = t
		called := false
		for _, m := range now.methods {
			if m.name != methodOf(int(n)) {
				continue
			}
			called = true
			if err := m.call(t.Context(), data); !tabled(err) {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		if !called {
			t.Fatalf("no method %q", methodOf(int(n)))
		}
		beside(t, now.dir)
	})
}

// callsOfOne is how many requests one driver gets. Opening a pool takes far
// longer than a request; what earlier requests have made the later ones meet.
const callsOfOne = 100

// served is a driver that serves for a while.
type served struct {
	dir     string
	methods []method
	mounter *checker
	calls   int
}

func (s served) close() {
	if s.mounter != nil {
		s.mounter.engine.Close()
	}
}

// methodOf is the method that a seed, or any number, stands for.
func methodOf(n int) string {
	all := seeds()
	name := string(all[n%len(all)].ProtoReflect().Descriptor().Name())
	return strings.TrimSuffix(name, "Request")
}

// tabled reports whether an error has a code that errors.go gives, of which
// Internal means a fault of ours.
func tabled(err error) bool {
	return slices.Contains([]codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.OutOfRange, codes.ResourceExhausted,
		codes.Aborted, codes.FailedPrecondition, codes.Unavailable,
	}, status.Code(err))
}

// beside fails if anything but the pool is in the directory, or anything in
// the pool that Plinth does not make.
func beside(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		parts := strings.Split(rel, string(filepath.Separator))
		if parts[0] != "." && parts[0] != "pool" || len(parts) > 1 && !slices.Contains([]string{".plinth", "volumes", "snapshots"}, parts[1]) {
			t.Errorf("%s was made", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// method is one RPC as the server has it.
type method struct {
	name string
	call func(ctx context.Context, data []byte) error
}

// registrar takes the services of a Server in place of a grpc.Server, so that
// they are called without a socket and with the same interceptor.
type registrar struct {
	methods   []method
	intercept grpc.UnaryServerInterceptor
}

func (r *registrar) RegisterService(d *grpc.ServiceDesc, service any) {
	for _, m := range d.Methods {
		r.methods = append(r.methods, method{m.MethodName, func(ctx context.Context, data []byte) error {
			_, err := m.Handler(service, ctx, func(request any) error {
				if proto.Unmarshal(data, request.(proto.Message)) != nil {
					return status.Error(codes.InvalidArgument, "no such message") // no handler sees it
				}
				return nil
			}, r.intercept)
			return err
		}})
	}
}

// serve serves every method of a driver over a memory pool in dir that has the
// volume vol, the volume whose name is My/Disk, and the snapshot snap.
func serve(t testing.TB, dir string) served {
	t.Helper()
	path := filepath.Join(dir, "pool")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	engine, err := pool.Open(t.Context(), pool.Options{
		Config: pool.Config{Pools: []pool.PoolConfig{{Name: "fast", Path: path, Backend: pool.BackendMemory, Overcommit: 1}}},
		Node:   "node-1", Log: log,
		Backends: map[string]pool.OpenBackend{pool.BackendMemory: func(ctx context.Context, cfg pool.PoolConfig) (backend.Opened, error) {
			return memory.Open(ctx, memory.Options{Dir: cfg.Path, Capacity: 1 << 40})
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vol", "My/Disk"} {
		if _, err := engine.Create(t.Context(), volume.Request{Spec: volume.Spec{Size: 1 << 20, Mode: volume.Filesystem}, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := engine.CreateSnapshot(t.Context(), volume.SnapshotRequest{Name: "snap", Volume: "vol"}); err != nil {
		t.Fatal(err)
	}
	mounter := &checker{engine: engine, t: t}
	s, err := driver.New(driver.Config{
		Name: "csi.plinth.dev", Version: "v1", Node: "node-1", Endpoint: "unix:///run/fuzz.sock", Log: log,
		Volumes: engine, Snapshots: engine, Modifier: engine, Health: engine, Mounter: mounter,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &registrar{intercept: s.Intercept}
	s.Register(r)
	return served{dir: dir, methods: r.methods, mounter: mounter}
}

// checker is a Mounter that checks what it is given and mounts nothing.
type checker struct {
	engine *pool.Manager
	t      testing.TB
}

func (c *checker) check(id volume.ID, clean ...string) error {
	if _, err := volume.ParseID(string(id)); err != nil {
		c.t.Errorf("the mounter is given the ID %q", id)
	}
	for _, path := range clean {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
			c.t.Errorf("the mounter is given the path %q", path)
		}
	}
	_, err := c.engine.Get(context.Background(), id)
	return err
}

func (c *checker) Get(ctx context.Context, id volume.ID) (volume.Volume, error) {
	return c.engine.Get(ctx, id)
}

func (c *checker) Stage(_ context.Context, id volume.ID, staging string, _ volume.Use) error {
	return c.check(id, staging)
}

func (c *checker) Unstage(_ context.Context, id volume.ID, staging string) error {
	_ = c.check(id, staging)
	return nil
}

func (c *checker) Publish(_ context.Context, id volume.ID, staging, target string, _ volume.Use) error {
	return c.check(id, staging, target)
}

func (c *checker) PublishEphemeral(ctx context.Context, id volume.ID, target string, _ volume.Use, r volume.Request) error {
	if err := c.check(id, target); err != nil && !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	_, err := c.engine.Create(ctx, r)
	return err
}

func (c *checker) Unpublish(_ context.Context, id volume.ID, target string) error {
	_ = c.check(id, target)
	return nil
}

func (c *checker) Stats(_ context.Context, id volume.ID, _ string) (volume.Usage, error) {
	return volume.Usage{}, c.check(id)
}

func (c *checker) Expand(_ context.Context, id volume.ID, _ string) (int64, error) {
	return 1 << 20, c.check(id)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSeedsSucceed: the fuzzing starts from requests that go all the way, and
// there is one for every method that is served.
func TestSeedsSucceed(t *testing.T) {
	seen := map[string]bool{}
	for n, seed := range seeds() {
		name := methodOf(n)
		seen[name] = true
		one := serve(t, t.TempDir())
		for _, m := range one.methods {
			if m.name != name {
				continue
			}
			if err := m.call(t.Context(), marshal(t, seed)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		one.close()
	}
	one := serve(t, t.TempDir())
	defer one.close()
	for _, m := range one.methods {
		if err := m.call(t.Context(), nil); !seen[m.name] && status.Code(err) != codes.Unimplemented {
			t.Errorf("no seed for %s: %v", m.name, err)
		}
	}
}

// seeds are one request for each method.
func seeds() []proto.Message {
	use := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{"noatime"}}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	here := &csi.Topology{Segments: map[string]string{"csi.plinth.dev/node": "node-1"}}
	size := &csi.CapacityRange{RequiredBytes: 2 << 20, LimitBytes: 4 << 20}
	return []proto.Message{
		&csi.CreateVolumeRequest{
			Name: "new/../volume", CapacityRange: size, VolumeCapabilities: []*csi.VolumeCapability{use},
			Parameters:                map[string]string{"pool": "fast", "onDelete": "delete", "provisioning": "thin"},
			AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{here}},
			VolumeContentSource:       &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: "snap"}}},
		},
		&csi.DeleteVolumeRequest{VolumeId: "My/Disk"},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: "vol", VolumeCapabilities: []*csi.VolumeCapability{use}, MutableParameters: map[string]string{"inodeLimit": "5"}},
		&csi.ListVolumesRequest{MaxEntries: 1, StartingToken: "after/a"},
		&csi.GetCapacityRequest{AccessibleTopology: here, VolumeCapabilities: []*csi.VolumeCapability{use}},
		&csi.ControllerGetCapabilitiesRequest{},
		&csi.ControllerGetVolumeRequest{VolumeId: "vol"},
		&csi.ControllerExpandVolumeRequest{VolumeId: "vol", CapacityRange: size, VolumeCapability: use},
		&csi.ControllerModifyVolumeRequest{VolumeId: "vol"},
		&csi.ControllerGetVolumeHealthRequest{VolumeId: "vol"},
		&csi.ControllerListVolumeHealthRequest{MaxEntries: 1},
		&csi.CreateSnapshotRequest{Name: "new", SourceVolumeId: "My/Disk"},
		&csi.DeleteSnapshotRequest{SnapshotId: "snap"},
		&csi.ListSnapshotsRequest{SourceVolumeId: "vol", SnapshotId: "snap"},
		&csi.GetSnapshotRequest{SnapshotId: "snap"},
		&csi.NodeStageVolumeRequest{VolumeId: "vol", StagingTargetPath: "/s", VolumeCapability: use},
		&csi.NodeUnstageVolumeRequest{VolumeId: "vol", StagingTargetPath: "/s"},
		&csi.NodePublishVolumeRequest{VolumeId: "vol", StagingTargetPath: "/s", TargetPath: "/t", VolumeCapability: use},
		&csi.NodePublishVolumeRequest{
			VolumeId: "csi-inline/volume", TargetPath: "/t", VolumeCapability: use,
			VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "size": "1Mi", "pool": "fast"},
		},
		&csi.NodeUnpublishVolumeRequest{VolumeId: "csi-inline/volume", TargetPath: "/t"},
		&csi.NodeGetVolumeStatsRequest{VolumeId: "vol", VolumePath: "/t"},
		&csi.NodeExpandVolumeRequest{VolumeId: "vol", VolumePath: "/t"},
		&csi.NodeGetVolumeHealthRequest{VolumeId: "vol"},
		&csi.NodeGetStorageHealthRequest{},
		&csi.NodeGetCapabilitiesRequest{},
		&csi.NodeGetInfoRequest{},
		&csi.GetPluginInfoRequest{},
		&csi.GetPluginCapabilitiesRequest{},
		&csi.ProbeRequest{},
	}
}
