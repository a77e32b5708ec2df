//go:build root

package sanity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/test/standalone"
)

// Sizes in bytes. A volume has to be large enough for XFS (mkfs.xfs refuses
// less than 300 MiB).
const (
	diskSize   = 6 << 30
	volumeSize = 320 << 20
	expandedTo = 448 << 20
)

// row is csi-sanity over one pool.
type row struct {
	backend, settings, access, fsType string
	disk                              loopfs.Options
	size, expandTo                    int64 // bytes
	mutable                           map[string]string
	lacks                             string // see Suite.Lacks
}

// TestStandalone runs csi-sanity against `plinth standalone` over real
// filesystems, and prints how each went.
func TestStandalone(t *testing.T) {
	btrfs, xfs, ext4 := loopfs.Options{Type: "btrfs", Size: diskSize}, loopfs.Options{Type: "xfs", Size: diskSize}, loopfs.Options{Type: "ext4", Size: diskSize}
	rows := []row{
		{backend: "btrfs", settings: "backend: auto", disk: btrfs, access: "mount"},
		{backend: "image", settings: "backend: auto", disk: xfs, access: "mount", fsType: "ext4"},
		{backend: "image", settings: "backend: image", disk: xfs, access: "mount", fsType: "xfs"},
		{backend: "image", settings: "backend: image", disk: xfs, access: "block"},
		{backend: "image", settings: "backend: image", disk: ext4, access: "mount", fsType: "ext4"},
		{backend: "image", settings: "backend: image", disk: ext4, access: "block"},
		{backend: "directory", settings: "backend: directory, quota: none", disk: xfs, access: "mount"},
		{backend: "directory", settings: "backend: directory, quota: none", disk: ext4, access: "mount"},
	}
	for i := range rows {
		rows[i].size, rows[i].expandTo = volumeSize, expandedTo
	}
	// A volume has its disk and no more, and nothing takes a snapshot of a disk.
	disks := row{backend: "device", disk: loopfs.Options{Type: "disks", Size: volumeSize}, access: "mount", fsType: "ext4", size: volumeSize, expandTo: volumeSize, lacks: noSnapshots}
	block := disks
	block.access, block.fsType = "block", ""
	rows = append(rows, disks, block)
	table(t, rows)
}

// noSnapshots are the tests that make a snapshot or a copy.
const noSnapshots = `should return snapshots? that match|new snapshots in the snapshot list|next token when a limited number of entries are requested` +
	`|DeleteSnapshot .* should return appropriate values|CreateSnapshot .* should (succeed|fail when requesting)|from an existing source`

// groups reports whether a pool can take several volumes at one instant.
func (r row) groups() bool { return r.backend == "image" && r.disk.Type == "xfs" }

// skips is what the backend of a row cannot do, as a regular expression.
func (r row) skips() string {
	switch {
	case r.groups():
		return r.lacks
	case r.lacks == "":
		return NoGroups
	}
	return NoGroups + "|" + r.lacks
}

// quotaEnv says that the kernel has project quotas: test/vm sets it.
const quotaEnv = "PLINTH_PROJECT_QUOTA"

// TestProjectQuota is TestStandalone for directories with a hard limit. It
// runs in a virtual machine, see test/vm.
func TestProjectQuota(t *testing.T) {
	if os.Getenv(quotaEnv) == "" {
		t.Skip("it needs a kernel with project quotas: test/vm/run sanity")
	}
	const size, disk = 64 << 20, 1 << 30
	base := row{backend: "directory", settings: "backend: directory", access: "mount", size: size, expandTo: 2 * size}
	base.mutable = map[string]string{"inodeLimit": "10000", "softLimit": "90%"}
	xfs, ext4 := base, base
	xfs.disk = loopfs.Options{Type: "xfs", Size: disk, Mount: []string{"prjquota"}}
	ext4.disk = loopfs.Options{Type: "ext4", Size: disk, Mkfs: []string{"-O", "quota,project", "-E", "quotatype=prjquota"}, Mount: []string{"prjquota"}}
	table(t, []row{xfs, ext4})
}

// table runs csi-sanity over each pool and prints how it went.
func table(t *testing.T, rows []row) {
	t.Helper()
	loopfs.NeedRoot(t)
	binary := os.Getenv(standalone.BinaryEnv)
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "plinth")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", binary, "./cmd/plinth").CombinedOutput(); err != nil {
			t.Fatalf("build plinth: %v\n%s", err, out)
		}
	}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "backend\ton\taccess\tfsType\tpassed\tfailed\tskipped\tseconds")
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s/%s/%s%s", r.backend, r.disk.Type, r.access, r.fsType), func(t *testing.T) {
			began := time.Now()
			dir, settings := place(t, r.disk, r.settings)
			plinth := standalone.New(t, binary, "fast", dir, settings, "--debug")
			plinth.Start(t)
			s := Suite{Address: plinth.Address, AccessType: r.access, Size: r.size, ExpandTo: r.expandTo, Mutable: r.mutable, Lacks: r.skips()}
			s.Parameters = map[string]string{"pool": "fast", "volumeType": "csi"}
			if r.fsType != "" {
				s.Parameters["csi.storage.k8s.io/fstype"] = r.fsType
			}
			if r.groups() {
				groupLife(t, s)
			}
			n := Run(t, s)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%.1f\n", r.backend, r.disk.Type, r.access, r.fsType, n.Passed, n.Failed, n.Skipped, time.Since(began).Seconds())
			left(t, dir)
		})
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\ncsi-sanity against plinth standalone\n%s\n", &table)
}

// place gives a pool's directory and settings: a filesystem of that type, or a
// plain directory beside disks, each exactly as large as a volume.
func place(t *testing.T, disk loopfs.Options, settings string) (dir, with string) {
	t.Helper()
	if disk.Type != "disks" {
		return loopfs.New(t, disk).Dir, settings
	}
	devices := strings.Join(loopfs.Disks(t, 8, disk.Size), ", ")
	return t.TempDir(), "backend: device, requireMount: false, devices: [" + devices + "]"
}

// left fails the test if the suite, which deletes what it makes, left
// anything in the pool.
func left(t *testing.T, disk string) {
	t.Helper()
	for _, dir := range []string{"volumes", "snapshots", ".plinth/volumes", ".plinth/snapshots", ".plinth/groups", ".plinth/tmp", ".plinth/trash"} {
		entries, err := os.ReadDir(filepath.Join(disk, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range entries {
			t.Errorf("left behind: %s/%s", dir, e.Name())
		}
	}
}
