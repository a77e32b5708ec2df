//go:build root

package mounts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// told is a Runner that remembers what it ran.
type told struct{ argvs []string }

func (r *told) Run(ctx context.Context, argv ...string) ([]byte, error) {
	r.argvs = append(r.argvs, strings.Join(argv, " "))
	return run.Exec{}.Run(ctx, argv...)
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if _, err := (run.Exec{}).Run(t.Context(), argv...); err != nil {
		t.Fatal(err)
	}
}

// overwrite puts bytes that are no filesystem's into a file.
func overwrite(t *testing.T, file string, at int64, length int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", length)), at)
	must(t, err, f.Sync(), f.Close())
}

// rootInode is where mkfs.xfs puts the root directory of an image of the size
// of these tests, in bytes: inode 128 of 512 bytes.
const rootInode = 65536

// TestDamaged: a damaged filesystem is repaired where that needs no decision.
// Else the stage is refused with the commands for a person, and the volume is
// what it was; it is formatted in no case.
func TestDamaged(t *testing.T) {
	loopfs.NeedTool(t, "debugfs", "e2fsprogs")
	loopfs.NeedTool(t, "xfs_repair", "xfsprogs")
	for _, c := range []struct {
		name   string
		kind   kind
		damage func(t *testing.T, image string)
		says   []string // of the refusal; none if it is repaired
		repair []string // by hand, before the name of the image
	}{
		{"ext4, counts that are wrong", kinds()[2], func(t *testing.T, image string) {
			command(t, "debugfs", "-w", "-R", "set_super_value free_blocks_count 1", image)
			command(t, "debugfs", "-w", "-R", "set_super_value state 2", image)
		}, nil, nil},
		{"ext4 without its root directory", kinds()[2], func(t *testing.T, image string) {
			command(t, "debugfs", "-w", "-R", "clri <2>", image)
			command(t, "debugfs", "-w", "-R", "set_super_value state 2", image)
		}, []string{"e2fsck -f /dev/loop", "UNEXPECTED INCONSISTENCY"}, []string{"sh", "-c", `e2fsck -fy "$0"; test $? -le 1`}},
		{"ext4 without its superblock", kinds()[2], func(t *testing.T, image string) { overwrite(t, image, 1024, 1024) },
			[]string{"Bad magic number", "e2fsck -b"}, []string{"sh", "-c", `e2fsck -fy -b 32768 "$0"; test $? -le 1`}},
		{"xfs, a directory that is no directory", kinds()[3], func(t *testing.T, image string) { overwrite(t, image, rootInode, 64) },
			[]string{"xfs_repair -n /dev/loop", "structure needs cleaning"}, []string{"xfs_repair"}},
		{"xfs without its superblock", kinds()[3], func(t *testing.T, image string) { overwrite(t, image, 0, 512) },
			[]string{"xfs_repair /dev/loop", "superblock"}, []string{"xfs_repair"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, ran := start(t, c.kind), &told{}
			n.host = Machine{Runner: ran}
			ctx, id, staging := t.Context(), n.create(t, c.kind), n.path("staging")
			image := filepath.Join(n.disk, "volumes", string(id)+".img")
			must(t, n.Stage(ctx, id, staging, use(c.kind)), put(staging, c.kind, "hello"), n.Unstage(ctx, id, staging))
			c.damage(t, image)
			err := n.Stage(ctx, id, staging, use(c.kind))
			if len(c.says) == 0 {
				must(t, err)
			} else {
				n.refusesDamaged(t, id, staging, err, c.says)
				command(t, append(c.repair, image)...)
				must(t, n.Stage(ctx, id, staging, use(c.kind)))
			}
			if !holdsFile(t, staging, "hello") { // by its name or in lost+found
				t.Error("what was written is lost")
			}
			must(t, n.Unstage(ctx, id, staging))
			for _, argv := range ran.argvs {
				if strings.HasPrefix(argv, "mk") {
					t.Errorf("a mount ran %s", argv)
				}
			}
		})
	}
}

// refusesDamaged checks a refusal, and that nothing stays mounted or attached.
func (n *node) refusesDamaged(t *testing.T, id volume.ID, staging string, err error, says []string) {
	t.Helper()
	if err == nil {
		t.Fatal("a damaged filesystem was mounted")
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got %v, want it to say %q", err, s)
		}
	}
	must(t, n.Unstage(t.Context(), id, staging))
	if left := loops(t, n.disk); len(left) > 0 {
		t.Errorf("attached: %v", left)
	}
}

// holdsFile reports whether any file below dir has this text.
func holdsFile(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || string(data) == text
		return err
	}))
	return found
}
