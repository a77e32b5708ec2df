//go:build bench

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
)

const (
	binaryEnv    = "PLINTH_BINARY" // where plinth is
	startTimeout = 30 * time.Second
	poolName     = "bench"
)

// machine is one pool on a filesystem of its own, served by `plinth standalone`.
type machine struct {
	*run
	fs  loopfs.FS
	dir string // for all else
	csi.ControllerClient
	csi.NodeClient
}

// newMachine makes the filesystem, with a pool of these settings on it. The
// test's end takes all of it away.
func newMachine(t *testing.T, on loopfs.Options, settings string) *machine {
	t.Helper()
	m := &machine{run: newRun(t), fs: loopfs.New(t, on)}
	var err error
	m.dir, err = os.MkdirTemp("", "plinth") // a socket's path is short (unix(7))
	m.must(err, "make a folder")
	t.Cleanup(func() {
		if err := os.RemoveAll(m.dir); err != nil {
			t.Error(err)
		}
	})
	pools := filepath.Join(m.dir, "pools.yaml")
	m.must(os.WriteFile(pools, fmt.Appendf(nil, "pools:\n- {name: %s, path: %s, %s}\n", poolName, m.fs.Dir, settings), 0o600), "write the pools file")
	endpoint := "unix://" + filepath.Join(m.dir, "csi.sock")
	m.start(exec.Command(os.Getenv(binaryEnv), "standalone", "--node-name=node-1", "--pools-file="+pools, "--endpoint="+endpoint, "--mounts-dir="+filepath.Join(m.dir, "mounts")))
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	m.must(err, "reach plinth")
	t.Cleanup(func() { _ = conn.Close() }) // nobody is left who would care
	ctx, cancel := context.WithTimeout(m.ctx, startTimeout)
	defer cancel()
	_, err = csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	m.must(err, "wait for plinth")
	m.ControllerClient, m.NodeClient = csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	return m
}

// start runs plinth until the test ends; should this process die, it ends, too.
func (m *machine) start(cmd *exec.Cmd) {
	m.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	m.must(cmd.Start(), "start plinth")
	m.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			m.Errorf("stop plinth: %v", err)
		}
		if m.Failed() {
			m.Logf("the end of plinth's log:\n%s", log.Bytes()[max(0, log.Len()-5000):])
		}
	})
}

// single is what a volume of one pod asks for.
func single() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

// volume makes a volume of that many bytes, mounts it, and returns where. The
// test's end takes it away.
func (m *machine) volume(id string, size int64) (target string) {
	m.Helper()
	m.must(m.create(id, size, nil), "make volume "+id)
	staging, target := filepath.Join(m.dir, id, "staging"), filepath.Join(m.dir, id, "target")
	m.must(os.MkdirAll(filepath.Dir(staging), 0o755), "make a folder")
	_, err := m.NodeStageVolume(m.ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: single()})
	m.must(err, "stage volume "+id)
	_, err = m.NodePublishVolume(m.ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: single()})
	m.must(err, "publish volume "+id)
	m.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limitOfCleanup)
		defer cancel()
		_, err := m.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
		_, err2 := m.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
		_, err3 := m.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		if err := errors.Join(err, err2, err3); err != nil {
			m.Errorf("remove volume %s: %v", id, err)
		}
	})
	return target
}

// limitOfCleanup is for what cannot be left out.
const limitOfCleanup = time.Minute

func (m *machine) create(id string, size int64, from *csi.VolumeContentSource) error {
	_, err := m.CreateVolume(m.ctx, &csi.CreateVolumeRequest{
		Name: id, Parameters: map[string]string{"pool": poolName},
		CapacityRange:       &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities:  []*csi.VolumeCapability{single()},
		VolumeContentSource: from,
	})
	return err
}
