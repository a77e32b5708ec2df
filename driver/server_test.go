package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestErrorTable(t *testing.T) {
	for err, want := range map[error]codes.Code{
		volume.ErrInvalid: codes.InvalidArgument, volume.ErrUnsupported: codes.InvalidArgument, volume.ErrNotFound: codes.NotFound,
		volume.ErrExists: codes.AlreadyExists, volume.ErrOutOfRange: codes.OutOfRange, volume.ErrNoCapacity: codes.ResourceExhausted,
		volume.ErrBusy: codes.Aborted, volume.ErrInUse: codes.FailedPrecondition, volume.ErrNotStaged: codes.FailedPrecondition,
		volume.ErrPoolUnavailable: codes.Unavailable, context.Canceled: codes.Canceled, context.DeadlineExceeded: codes.DeadlineExceeded,
		errors.New("anything else"): codes.Internal,
	} {
		got := status.Convert(toStatus(fmt.Errorf("stage volume pvc-1: %w", err)))
		if got.Code() != want || !strings.Contains(got.Message(), "pvc-1") {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	if toStatus(nil) != nil {
		t.Error("no error became one")
	}
	if err := status.Error(codes.Unimplemented, "no"); !errors.Is(toStatus(err), err) {
		t.Error("a status was changed")
	}
}

func TestNewValidates(t *testing.T) {
	good := Config{
		Name: testDriver, Version: "v1", Node: "n", Endpoint: "unix:///run/x.sock", RegistrationDir: "/reg",
		Volumes: &fakeVolumes{}, Mounter: &fakeMounter{}, Log: slog.New(slog.DiscardHandler),
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no name": func(c *Config) { c.Name = "" }, "bad name": func(c *Config) { c.Name = "a/b" },
		"no version": func(c *Config) { c.Version = "" }, "tcp": func(c *Config) { c.Endpoint = "tcp://0.0.0.0:1" },
		"relative": func(c *Config) { c.Endpoint = "unix://x.sock" }, "no node": func(c *Config) { c.Node = "" },
		"nothing to serve": func(c *Config) { c.Volumes, c.Mounter = nil, nil }, "no log": func(c *Config) { c.Log = nil },
		"a controller that registers": func(c *Config) { c.Mounter = nil },
	} {
		c := good
		change(&c)
		if _, err := New(c); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start serves until the test ends and returns the directory of its sockets.
func start(t *testing.T, change func(dir string, c *Config)) (dir string, log *syncBuffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "plinth") // a socket's path is short (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	log = &syncBuffer{}
	cfg := Config{
		Name: testDriver, Version: "v1", Node: "node-1", Endpoint: "unix://" + filepath.Join(dir, "csi.sock"),
		RegistrationDir: filepath.Join(dir, "reg"), Volumes: &fakeVolumes{}, Mounter: &fakeMounter{},
		Log: slog.New(slog.NewJSONHandler(log, nil)),
	}
	change(dir, &cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, socket := range []string{"csi.sock", "reg/" + testDriver + "-reg.sock"} {
			if _, err := os.Lstat(filepath.Join(dir, socket)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", socket, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, log
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// panicking panics in Create.
type panicking struct{ fakeVolumes }

func (*panicking) Create(context.Context, volume.Request) (volume.Volume, error) { panic("oh no") }

func TestServe(t *testing.T) {
	dir, log := start(t, func(dir string, c *Config) {
		c.Volumes = &panicking{}
		// A socket of a process that was killed is in the way.
		l, err := net.Listen("unix", filepath.Join(dir, "csi.sock"))
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	conn := dial(t, filepath.Join(dir, "csi.sock"))
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != testDriver || info.GetVendorVersion() != "v1" {
		t.Errorf("got %v, %v", info, err)
	}
	_, err = csi.NewControllerClient(conn).CreateVolume(t.Context(), createReq(func(r *csi.CreateVolumeRequest) {
		r.Secrets = map[string]string{"key": "hunter2"}
	}))
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "oh no") {
		t.Errorf("a panic: %v", err)
	}
	_, err = csi.NewControllerClient(conn).CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a snapshot: %v", err)
	}
	for _, says := range []string{"oh no", "CreateVolume", `"code":"Internal"`, `"code":"Unimplemented"`} {
		if !strings.Contains(log.String(), says) {
			t.Errorf("the log does not say %q", says)
		}
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error("the log tells a secret")
	}
}

func TestRegistration(t *testing.T) {
	dir, log := start(t, func(string, *Config) {})
	client := registerapi.NewRegistrationClient(dial(t, filepath.Join(dir, "reg", testDriver+"-reg.sock")))
	info, err := client.GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil || info.GetType() != registerapi.CSIPlugin || info.GetName() != testDriver || info.GetEndpoint() != filepath.Join(dir, "csi.sock") {
		t.Errorf("got %v, %v", info, err)
	}
	for _, s := range []*registerapi.RegistrationStatus{{PluginRegistered: true}, {Error: "no such node"}} {
		if _, err := client.NotifyRegistrationStatus(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	for _, says := range []string{"registered with kubelet", "no such node"} {
		if !strings.Contains(log.String(), says) {
			t.Errorf("the log does not say %q", says)
		}
	}
}

// TestSocketInUse: neither a living server nor a file is pushed aside.
func TestSocketInUse(t *testing.T) {
	dir, _ := start(t, func(string, *Config) {})
	live := filepath.Join(dir, "csi.sock")
	if _, err := csi.NewIdentityClient(dial(t, live)).Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for socket, says := range map[string]string{live: "another process", file: "not a socket"} {
		s, err := New(Config{Name: testDriver, Version: "v1", Endpoint: "unix://" + socket, Volumes: &fakeVolumes{}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", socket, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("the file is gone: %v", err)
	}
}
