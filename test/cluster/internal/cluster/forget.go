package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/loop"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

const (
	// iocShutdown is XFS_IOC_GOINGDOWN, which ext4 has under the name
	// EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32).
	iocShutdown = 0x8004587d
	// noLogFlush lets the filesystem end without writing anything more.
	noLogFlush = 2
)

// forgetUnsynced makes the filesystems that only m has end where they stand: what
// was not synced never reaches the disk. Processes that still run for a moment
// see I/O errors.
func (c *Cluster) forgetUnsynced(m plan.Machine) error {
	record := c.store.Get().Machines[m.Name]
	if !record.Init.Alive() {
		return nil
	}
	// Of a file on a filesystem that has ended the kernel no longer says which it is.
	family, err := loop.Family(c.diskFiles(m))
	if err != nil {
		return err
	}
	if err := c.store.Update(func(s *state.State) { s.Machines[m.Name].Loops = family }); err != nil {
		return err
	}
	for _, d := range disks {
		if d.fs == "" {
			continue
		}
		err := shutDownFilesystem(filepath.Join("/proc", strconv.Itoa(record.Init.PID), "root", d.at))
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
			c.Log.Printf("%s on %s cannot be told to lose anything", d.fs, m.Name)
			continue
		}
		if err != nil {
			return fmt.Errorf("make %s on %s lose what is not synced: %w", d.at, m.Name, err)
		}
	}
	return nil
}

func shutDownFilesystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	return unix.IoctlSetPointerInt(int(f.Fd()), iocShutdown, noLogFlush)
}
