//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
)

const (
	copiesDisk   = 24 << 30 // bytes, sparse
	copiesVolume = 3 << 30
	copiesTurns  = 9
	// sameTime is how much longer a copy of 32 times the bytes may take to be
	// called independent of them: what reflinks and btrfs share is metadata,
	// of which more bytes have a little more.
	sameTime = 2
)

// held is how much the volumes hold, in MiB.
var held = []int64{64, 512, 2048}

// TestCopies measures snapshots and clones of volumes that hold more and more.
func TestCopies(t *testing.T) {
	for _, c := range []struct{ name, fs, settings string }{
		{"btrfs", "btrfs", "backend: btrfs"},
		{"image on XFS", "xfs", "backend: image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, loopfs.Options{Type: c.fs, Size: copiesDisk}, c.settings)
			for _, mib := range held {
				m.hold(m.volume(volumeOf(mib), copiesVolume), mib)
			}
			snapshots, clones := map[int64][]float64{}, map[int64][]float64{}
			for turn := range number(t, roundsEnv, copiesTurns) {
				for _, mib := range held {
					snapshots[mib] = append(snapshots[mib], m.timeOf(func() error { return m.snapshot(volumeOf(mib), turn) }))
					clones[mib] = append(clones[mib], m.timeOf(func() error { return m.clone(volumeOf(mib), turn) }))
					m.forget(volumeOf(mib), turn)
				}
			}
			m.same("snapshot", c.name, snapshots)
			m.same("clone", c.name, clones)
		})
	}
}

func volumeOf(mib int64) string { return fmt.Sprintf("holds-%d", mib) }

// hold writes that many MiB into a volume, down to the disk.
func (m *machine) hold(dir string, mib int64) {
	m.Helper()
	m.command("dd", "if=/dev/urandom", "of="+filepath.Join(dir, "data"), "bs=1M", fmt.Sprintf("count=%d", mib), "conv=fsync")
	file, err := os.Open(dir)
	m.must(err, "open the volume")
	defer file.Close()
	m.must(unix.Syncfs(int(file.Fd())), "sync the volume")
}

func (m *machine) timeOf(do func() error) float64 {
	m.Helper()
	began := time.Now()
	m.must(do(), "copy a volume")
	return time.Since(began).Seconds()
}

// snapshot returns once the snapshot can be used.
func (m *machine) snapshot(source string, turn int) error {
	for {
		r, err := m.CreateSnapshot(m.ctx, &csi.CreateSnapshotRequest{Name: fmt.Sprintf("s-%s-%d", source, turn), SourceVolumeId: source})
		if err != nil || r.Snapshot.ReadyToUse {
			return err
		}
		m.pause(10 * time.Millisecond)
	}
}

func (m *machine) clone(source string, turn int) error {
	return m.create(fmt.Sprintf("c-%s-%d", source, turn), copiesVolume, &csi.VolumeContentSource{
		Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: source}},
	})
}

// forget removes what a turn has made, so that all turns find the same.
func (m *machine) forget(source string, turn int) {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, limitOfCleanup)
	defer cancel()
	_, err := m.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: fmt.Sprintf("s-%s-%d", source, turn)})
	m.must(err, "delete a snapshot")
	_, err = m.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: fmt.Sprintf("c-%s-%d", source, turn)})
	m.must(err, "delete a clone")
}

// same writes down how much longer the most bytes took than the fewest.
func (m *machine) same(what, name string, times map[int64][]float64) {
	m.Helper()
	least, most := held[0], held[len(held)-1]
	measured := ""
	for _, mib := range held {
		measured += fmt.Sprintf(", %d MiB %.0f ms", mib, 1e3*quantile(times[mib], 0.5))
	}
	ratio := quantile(times[most], 0.5) / quantile(times[least], 0.5)
	m.tell(figure{
		Name: fmt.Sprintf("%s of %d MiB ÷ of %d MiB, time, %s", what, most, least, name), Value: ratio,
		Measured: fmt.Sprintf("%.2f (%s)", ratio, measured[2:]),
	}.atMost(sameTime, ""))
}
