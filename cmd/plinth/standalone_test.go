package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// TestStandalone goes from flags to a volume, twice: the second process finds
// what the first made.
func TestStandalone(t *testing.T) {
	dir, err := os.MkdirTemp("", "plinth") // a socket's path is short (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	pools := filepath.Join(dir, "pools.yaml")
	text := fmt.Sprintf("pools:\n- {name: fast, path: %s, backend: memory, requireMount: false}\n- {name: bad, path: relative}\n", t.TempDir())
	if err := os.WriteFile(pools, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "csi.sock")
	for _, volumes := range []int{0, 1} {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		cmd := newRootCommand()
		cmd.SetArgs([]string{"standalone", "--node-name=n1", "--pools-file=" + pools, "--endpoint=unix://" + socket, "--mounts-dir=" + filepath.Join(dir, "mounts")})
		go func() { done <- cmd.ExecuteContext(ctx) }()
		client := csi.NewControllerClient(connect(t, socket))
		list, err := client.ListVolumes(ctx, &csi.ListVolumesRequest{})
		if err != nil || len(list.GetEntries()) != volumes {
			t.Errorf("%v, %v, want %d volumes", list, err, volumes)
		}
		_, err = client.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "pvc-1", VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		}}})
		if err != nil {
			t.Error(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func connect(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestStandaloneRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("pool: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("pools: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"no pools file":     {"--pools-file=" + filepath.Join(dir, "none")},
		"a bad pools file":  {"--pools-file=" + bad},
		"no node name":      {"--pools-file=" + good, "--node-name="},
		"a bad endpoint":    {"--pools-file=" + good, "--endpoint=tcp://:1"},
		"a relative mounts": {"--pools-file=" + good, "--mounts-dir=mounts"},
		"an argument":       {"extra"},
		"an unknown flag":   {"--colour=red"},
	} {
		cmd := newRootCommand()
		cmd.SetArgs(append([]string{"standalone"}, args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
