//go:build bench

package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/test/standalone"
)

const poolName = "bench"

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
	plinth := standalone.New(t, os.Getenv(standalone.BinaryEnv), poolName, m.fs.Dir, settings)
	plinth.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // should this process die
	m.dir = plinth.Dir
	conn := plinth.Start(t)
	m.ControllerClient, m.NodeClient = csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	return m
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
