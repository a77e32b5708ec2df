package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/plinth-csi/plinth/test/cluster/internal/loop"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

const (
	poolBytes  = 4 << 30   // sparse
	spareBytes = 512 << 20 // sparse
)

// disk is a file that a machine sees as a disk.
type disk struct {
	name  string
	bytes int64
	mkfs  []string // command that formats it, without the file; none: it stays raw
	fs    string
	at    string // where it is mounted, or the link to the raw device
}

// disks of each node. Every format command works on a plain file.
var disks = []disk{
	{"btrfs", poolBytes, []string{"mkfs.btrfs", "-q"}, "btrfs", "/mnt/btrfs"},
	{"xfs", poolBytes, []string{"mkfs.xfs", "-q", "-m", "reflink=1"}, "xfs", "/mnt/xfs"},
	{"ext4", poolBytes, []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"}, "ext4", "/mnt/ext4"},
	{"spare0", spareBytes, nil, "", "/mnt/disks/spare0"},
	{"spare1", spareBytes, nil, "", "/mnt/disks/spare1"},
}

// shared is one disk for all nodes: they mount the same device, which is the
// same filesystem, as the same folder of one machine would be.
var shared = disk{"shared", poolBytes, []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"}, "ext4", "/mnt/shared"}

func (c *Cluster) diskFile(m plan.Machine, d disk) string {
	if d.name == shared.name {
		return filepath.Join(c.Dir, "shared.img")
	}
	return filepath.Join(c.machineDir(m), "disks", d.name+".img")
}

// diskFiles are the files of the disks that only m has.
func (c *Cluster) diskFiles(m plan.Machine) []string {
	if m.IsControl() {
		return nil
	}
	var files []string
	for _, d := range disks {
		files = append(files, c.diskFile(m, d))
	}
	return files
}

// makeDisk creates and formats d, unless it is there.
func (c *Cluster) makeDisk(ctx context.Context, m plan.Machine, d disk) error {
	path := c.diskFile(m, d)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// It gets its name when it is whole.
	tmp := path + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(d.bytes), f.Close()); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	if d.mkfs != nil {
		if _, err := run.Output(ctx, append(d.mkfs, tmp)...); err != nil {
			return fmt.Errorf("format disk %s: %w", path, err)
		}
	}
	return os.Rename(tmp, path)
}

// plugDisks makes sure that m has its disks, and adds them to spec.
func (c *Cluster) plugDisks(ctx context.Context, m plan.Machine, spec *machine.Spec) error {
	all := append([]disk{shared}, disks...)
	devices := make([]string, len(all))
	work, ctx := errgroup.WithContext(ctx)
	for i, d := range all {
		work.Go(func() error {
			if d.name != shared.name {
				if err := c.makeDisk(ctx, m, d); err != nil {
					return err
				}
			}
			var err error
			devices[i], err = loop.Attach(c.diskFile(m, d))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for i, d := range all {
		if d.fs == "" {
			spec.Links = append(spec.Links, machine.Link{Path: d.at, Target: devices[i]})
		} else {
			spec.Disks = append(spec.Disks, machine.Disk{Device: devices[i], FSType: d.fs, Target: d.at})
		}
	}
	return nil
}
