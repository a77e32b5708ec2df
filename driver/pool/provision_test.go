package pool

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/volume"
)

// formatting is a memory backend that says it formats.
type formatting struct{ backend.Opened }

func (formatting) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem, volume.Block}, FSTypes: []string{"ext4", "xfs"}}
}

func (f formatting) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	s.FSType = ""
	return f.Opened.Ensure(ctx, s)
}

// several opens pools of 10, 20 and 30 GiB: dirs, images that format, shared.
func several(t *testing.T) *Manager {
	t.Helper()
	base := t.TempDir()
	o := testOptions(base)
	o.Config.Pools = nil
	sizes := map[string]int64{}
	for i, name := range []string{"dirs", "images", "shared"} {
		path := filepath.Join(base, name)
		mkdir(t, path)
		sizes[path] = int64(i+1) * testCapacity
		o.Config.Pools = append(o.Config.Pools, PoolConfig{
			Name: name, Path: path, Backend: BackendMemory, Overcommit: 1, Line: i + 2, Shared: name == "shared",
		})
	}
	o.Backends[BackendMemory] = func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := memory.Open(ctx, memory.Options{Dir: cfg.Path, Capacity: sizes[cfg.Path]})
		if cfg.Name == "images" && err == nil {
			return formatting{b}, nil
		}
		return b, err
	}
	return open(t, o)
}

func TestChoice(t *testing.T) {
	const gi = 1 << 30
	for i, c := range []struct {
		name   string
		change func(r *volume.Request)
		pool   string
		fsType string
		err    error
		says   string
	}{
		{"any: the one with most space", func(*volume.Request) {}, "shared", "", nil, ""},
		{"a list", func(r *volume.Request) { r.Pool = "dirs, images" }, "images", "ext4", nil, ""},
		{"by filesystem", func(r *volume.Request) { r.FSType = "xfs" }, "images", "xfs", nil, ""},
		{"by name", func(r *volume.Request) { r.Pool = "dirs" }, "dirs", "", nil, ""},
		{"many nodes", func(r *volume.Request) { r.AccessModes = []volume.AccessMode{volume.ReadWriteMany} }, "shared", "", nil, ""},
		{"many nodes on a pool of one", func(r *volume.Request) {
			r.AccessModes, r.Pool = []volume.AccessMode{volume.ReadWriteMany}, "dirs"
		}, "", "", volume.ErrUnsupported, "use a shared pool"},
		{"no such pool", func(r *volume.Request) { r.Pool = "none" }, "", "", volume.ErrInvalid, "the pools are dirs, images, shared"},
		{"a filesystem in a directory", func(r *volume.Request) { r.Pool, r.FSType = "dirs", "ext4" }, "", "", volume.ErrUnsupported, "gives directories"},
		{"an unknown filesystem", func(r *volume.Request) { r.Pool, r.FSType = "images", "zfs" }, "", "", volume.ErrUnsupported, "ext4, xfs"},
		{"another node", func(r *volume.Request) { r.Nodes, r.Pool = []string{"node-2"}, "dirs" }, "", "", volume.ErrNoCapacity, "node-1"},
		{"larger than any pool", func(r *volume.Request) { r.Size = 100 * gi }, "", "", volume.ErrOutOfRange, "dirs"},
		{"larger than one pool", func(r *volume.Request) { r.Size = 25 * gi }, "shared", "", nil, ""},
		{"no size", func(r *volume.Request) { r.Size = 0 }, "", "", volume.ErrInvalid, ""},
		{"limit below size", func(r *volume.Request) { r.LimitBytes = 1 }, "", "", volume.ErrInvalid, ""},
		{"no mode", func(r *volume.Request) { r.Mode = "" }, "", "", volume.ErrInvalid, "Filesystem"},
		{"a device with a filesystem", func(r *volume.Request) { r.Mode, r.FSType = volume.Block, "ext4" }, "", "", volume.ErrInvalid, "block device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := several(t)
			r := request(fmt.Sprintf("pvc-%d", i), gi)
			c.change(&r)
			v, err := m.Create(t.Context(), r)
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %v with %q", err, c.err, c.says)
				}
				return
			}
			if err != nil || v.Pool != c.pool || v.FSType != c.fsType {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

func TestCreateIsIdempotent(t *testing.T) {
	const gi = 1 << 30
	m := several(t)
	first := request("a", 2*gi)
	first.Pool = "images"
	made, err := m.Create(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(r *volume.Request)
		differ bool
	}{
		{"the same", func(*volume.Request) {}, false},
		{"its filesystem named", func(r *volume.Request) { r.FSType = "ext4" }, false},
		{"among several pools", func(r *volume.Request) { r.Pool = "dirs,images" }, false},
		{"less, without a limit", func(r *volume.Request) { r.Size = gi }, false},
		{"less, with a limit", func(r *volume.Request) { r.Size, r.LimitBytes = gi, gi }, true},
		{"more", func(r *volume.Request) { r.Size = 3 * gi }, true},
		{"another filesystem", func(r *volume.Request) { r.FSType = "xfs" }, true},
		{"another mode", func(r *volume.Request) { r.Mode = volume.Block }, true},
		{"another pool", func(r *volume.Request) { r.Pool = "dirs" }, true},
		{"many nodes", func(r *volume.Request) { r.AccessModes = []volume.AccessMode{volume.ReadWriteMany} }, true},
		{"another name of that ID", func(r *volume.Request) { r.ID, r.Name = "a", "b" }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := first
			c.change(&r)
			v, err := m.Create(t.Context(), r)
			if c.differ != errors.Is(err, volume.ErrExists) {
				t.Fatalf("got %v", err)
			}
			if !c.differ && (err != nil || v.ID != made.ID || v.Size != made.Size) {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

func TestOtherClustersVolume(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	create(t, m, "a", 1<<30)
	m.Close()
	o := testOptions(dir)
	o.ClusterID = "c2"
	m = open(t, o)
	if _, err := m.Create(t.Context(), request("a", 1<<30)); !errors.Is(err, volume.ErrExists) {
		t.Errorf("taken from another cluster: %v", err)
	}
	if err := m.Delete(t.Context(), "a"); !errors.Is(err, volume.ErrExists) {
		t.Errorf("deleted by another cluster: %v", err)
	}
	if all, err := m.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("it is not shown: %v, %v", all, err)
	}
}

func TestBusyVolume(t *testing.T) {
	m := open(t, testOptions(t.TempDir()))
	create(t, m, "a", 1<<30)
	release, err := m.Hold("a")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"hold":   second(m.Hold("a")),
		"create": second(m.Create(t.Context(), request("a", 1<<30))),
		"delete": m.Delete(t.Context(), "a"),
		"expand": second(m.Expand(t.Context(), "a", 2<<30)),
	} {
		if !errors.Is(err, volume.ErrBusy) {
			t.Errorf("%s: %v", what, err)
		}
	}
	create(t, m, "b", 1<<30) // another volume is not in the way
	release()
	if err := m.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

// TestDeleteInUse: a volume that is attached stays whole and usable.
func TestDeleteInUse(t *testing.T) {
	m := open(t, testOptions(t.TempDir()))
	create(t, m, "a", 1<<30)
	if _, err := m.Attach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), "a"); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	agree(t, m, "refused deletion")
	if err := errors.Join(m.Detach(t.Context(), "a"), m.Delete(t.Context(), "a"), m.Delete(t.Context(), "a")); err != nil {
		t.Error(err)
	}
	agree(t, m, "deleted")
}

// failing is a backend that cannot make volumes.
type failing struct{ backend.Opened }

func (failing) Ensure(context.Context, volume.Spec) (volume.Info, error) {
	return volume.Info{}, errors.New("the disk says no")
}

// TestFailureIsUndone: what could not be made leaves no record and no
// reservation behind.
func TestFailureIsUndone(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Backends[BackendMemory] = func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return failing{b}, err
	}
	m := open(t, o)
	if _, err := m.Create(t.Context(), request("a", 1<<30)); err == nil || !strings.Contains(err.Error(), "the disk says no") {
		t.Errorf("got %v", err)
	}
	agree(t, m, "undone")
}

func TestSpace(t *testing.T) {
	const gi = 1 << 30
	m := several(t)
	create(t, m, "a", gi) // in shared
	for _, c := range []struct {
		name string
		r    volume.Request
		want volume.Space
	}{
		{"all", volume.Request{}, volume.Space{Available: 59 * gi, Max: 29 * gi, Min: 1}},
		{"one pool", volume.Request{Pool: "dirs"}, volume.Space{Available: 10 * gi, Max: 10 * gi, Min: 1}},
		{"a filesystem", volume.Request{Spec: volume.Spec{FSType: "xfs"}}, volume.Space{Available: 20 * gi, Max: 20 * gi, Min: 1}},
		{"another node", volume.Request{Nodes: []string{"node-2"}}, volume.Space{Available: 29 * gi, Max: 29 * gi, Min: 1}},
		{"an unknown pool", volume.Request{Pool: "none"}, volume.Space{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := m.Space(t.Context(), c.r)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// TestAuto takes the first backend that can serve a path and keeps to it.
func TestAuto(t *testing.T) {
	unsupported := func(context.Context, PoolConfig) (backend.Opened, error) {
		return nil, fmt.Errorf("%w: not here", volume.ErrUnsupported)
	}
	dir := t.TempDir()
	o := testOptions(dir)
	o.Config.Pools[0].Backend = BackendAuto
	o.Backends = map[string]OpenBackend{BackendBtrfs: unsupported, BackendDirectory: unsupported, BackendImage: openMemory}
	m := open(t, o)
	if st := m.Pools(t.Context())[0]; st.State != volume.PoolReady || st.Backend != BackendImage {
		t.Errorf("%+v", st)
	}
	m.Close()
	o.Backends[BackendBtrfs] = openMemory // it could now, but the pool is of images
	m = open(t, o)
	if st := m.Pools(t.Context())[0]; st.Backend != BackendImage {
		t.Errorf("%+v", st)
	}

	o = testOptions(t.TempDir())
	o.Config.Pools[0].Backend, o.Config.Pools[0].Shared = BackendAuto, true
	o.Backends = map[string]OpenBackend{BackendBtrfs: openMemory, BackendDirectory: unsupported, BackendImage: openMemory}
	m = open(t, o)
	st := m.Pools(t.Context())[0]
	if st.Reason != ReasonBackend || !strings.Contains(st.Message, "not here") || !strings.Contains(st.Message, "quota: none") {
		t.Errorf("%+v", st)
	}
}

// TestTwins: of two records of one volume none is taken for the right one.
func TestTwins(t *testing.T) {
	m := several(t)
	r := request("a", 1<<30)
	r.Pool = "dirs"
	if _, err := m.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	twin := m.slots()[0].pool
	e, err := twin.records.get("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.slots()[1].pool.records.put(e.record); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"get": second(m.Get(t.Context(), "a")), "attach": second(m.Attach(t.Context(), "a")), "delete": m.Delete(t.Context(), "a"),
	} {
		if !errors.Is(err, volume.ErrPoolUnavailable) || !strings.Contains(err.Error(), "dirs") || !strings.Contains(err.Error(), "images") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestLostPoolMayHold: while a pool is away, a volume that may be in it is not
// made a second time in another.
func TestLostPoolMayHold(t *testing.T) {
	m := several(t)
	p := m.slots()[2].pool // the shared one, which has most space
	create(t, m, "a", 1<<30)
	away := p.cfg.Path + "-away"
	move(t, p.cfg.Path, away)
	if _, err := m.Create(t.Context(), request("a", 1<<30)); !errors.Is(err, volume.ErrPoolUnavailable) || !strings.Contains(err.Error(), "by its name") {
		t.Errorf("a twin: %v", err)
	}
	named := request("b", 1<<30)
	named.Pool = "dirs"
	if _, err := m.Create(t.Context(), named); err != nil {
		t.Errorf("another pool by name: %v", err)
	}
	move(t, away, p.cfg.Path)
	if v := create(t, m, "a", 1<<30); v.Pool != "shared" {
		t.Errorf("%+v", v)
	}
}

// TestRootDirectory: a volume is as the first request has made it, and a block
// device has no root directory.
func TestRootDirectory(t *testing.T) {
	m := several(t)
	r := request("r", 1<<20)
	r.Root = volume.Root{Mode: 0o750}
	if v, err := m.Create(t.Context(), r); err != nil || v.Root != r.Root {
		t.Fatalf("%+v, %v", v, err)
	}
	r.Root.Mode = 0o700
	if _, err := m.Create(t.Context(), r); !errors.Is(err, volume.ErrExists) {
		t.Errorf("another root directory: %v", err)
	}
	r = request("b", 1<<20)
	r.Mode, r.Root = volume.Block, volume.Root{UID: 1}
	if _, err := m.Create(t.Context(), r); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("of a block device: %v", err)
	}
}
