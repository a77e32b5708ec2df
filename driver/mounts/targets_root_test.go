//go:build root

package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// shape is all names below a directory, with what they are.
func shape(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil {
			out = append(out, path+" "+d.Type().String())
		}
		return err
	}))
	return strings.Join(out, "\n")
}

// TestTargets: what is in the way of a publish is refused, and neither
// published over, nor through, nor removed by an unpublish.
func TestTargets(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx, id, staging, outside := t.Context(), n.create(t, k), n.path("staging"), t.TempDir()
			must(t, n.Stage(ctx, id, staging, use(k)), os.MkdirAll(outside+"/empty", 0o700), os.WriteFile(outside+"/file", nil, 0o600))
			block := k.mode == volume.Block
			for _, c := range []struct {
				name   string
				make   func(target string) error
				below  string // of the target, what is asked
				want   error
				remove error // what an unpublish says
			}{
				{"a link to a directory", func(p string) error { return os.Symlink(outside+"/empty", p) }, "", volume.ErrInvalid, volume.ErrInvalid},
				{"a link to a file", func(p string) error { return os.Symlink(outside+"/file", p) }, "", volume.ErrInvalid, volume.ErrInvalid},
				{"a link to nothing", func(p string) error { return os.Symlink(outside+"/new", p) }, "", volume.ErrInvalid, volume.ErrInvalid},
				{"below a link", func(p string) error { return os.Symlink(outside, p) }, "/target", volume.ErrInvalid, volume.ErrInvalid},
				{"below a link to nothing", func(p string) error { return os.Symlink(outside+"/new", p) }, "/target", volume.ErrInvalid, volume.ErrInvalid},
				{"a directory with something in it", func(p string) error { return os.MkdirAll(p+"/sub", 0o700) }, "", volume.ErrExists, volume.ErrExists},
				{"a file with something in it", func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) }, "", volume.ErrExists, volume.ErrExists},
				{"a fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }, "", volume.ErrExists, volume.ErrExists},
				{"another kind", func(p string) error {
					if block {
						return os.Mkdir(p, 0o700)
					}
					return os.WriteFile(p, nil, 0o600)
				}, "", volume.ErrExists, nil},
			} {
				t.Run(c.name, func(t *testing.T) {
					place := n.path("target")
					target := place + c.below
					must(t, c.make(place))
					before := shape(t, outside) + shape(t, place)
					wants(t, "publish", n.Publish(ctx, id, staging, target, use(k)), c.want)
					if after := shape(t, outside) + shape(t, place); after != before {
						t.Errorf("before: %s\nafter: %s", before, after)
					}
					wants(t, "unpublish", n.Unpublish(ctx, id, target), c.remove)
					if c.remove == nil {
						return // it was as empty as what we make, and is gone
					}
					if after := shape(t, outside) + shape(t, place); after != before {
						t.Errorf("unpublish: before: %s\nafter: %s", before, after)
					}
					must(t, os.RemoveAll(place))
				})
			}
			if !block {
				wants(t, "within the volume", n.Publish(ctx, id, staging, staging+"/target", use(k)), volume.ErrInvalid)
				wants(t, "at staging", n.Publish(ctx, id, staging, staging, use(k)), volume.ErrInvalid)
				// Something else is mounted there.
				must(t, os.Mkdir(n.path("target"), 0o700), syscall.Mount("none", n.path("target"), "tmpfs", 0, "size=1m"))
				wants(t, "over something else", n.Publish(ctx, id, staging, n.path("target"), use(k)), volume.ErrExists)
				must(t, syscall.Unmount(n.path("target"), 0))
			}
			must(t, n.Unstage(ctx, id, staging))
		})
	}
}

// TestReaderBesideWriter: one filesystem, read-only at one target and
// read-write at another; each target keeps to what it was.
func TestReaderBesideWriter(t *testing.T) {
	for _, k := range kinds()[:4] {
		t.Run(k.name, func(t *testing.T) {
			n := start(t, k)
			ctx, id := t.Context(), n.create(t, k)
			staging, one, two := n.path("staging"), n.path("one"), n.path("two")
			reader := use(k)
			reader.ReadOnly = true
			must(t, n.Stage(ctx, id, staging, use(k)), n.Publish(ctx, id, staging, one, use(k)), n.Publish(ctx, id, staging, two, reader))
			must(t, put(one, k, "hello"))
			if got := get(t, two, k, 5); got != "hello" {
				t.Errorf("the reader has %q", got)
			}
			if err := put(two, k, "other"); err == nil {
				t.Error("the reader wrote")
			}
			wants(t, "the reader writing", n.Publish(ctx, id, staging, two, use(k)), volume.ErrExists)
			quiet := use(k)
			quiet.Options = []string{"noexec"}
			wants(t, "other flags at a target", n.Publish(ctx, id, staging, one, quiet), volume.ErrExists)
			wants(t, "other flags at staging", n.Stage(ctx, id, staging, quiet), volume.ErrExists)
			if k.fsType != "" {
				lazy := use(k)
				lazy.Options = []string{"lazytime"}
				wants(t, "an option of the filesystem at staging", n.Stage(ctx, id, staging, lazy), volume.ErrExists)
				must(t, n.Unpublish(ctx, id, one), n.Unpublish(ctx, id, two), n.Unstage(ctx, id, staging))
				must(t, n.Stage(ctx, id, staging, lazy), n.Stage(ctx, id, staging, lazy))
			}
			must(t, n.Unpublish(ctx, id, one), n.Unpublish(ctx, id, two), n.Unstage(ctx, id, staging))
		})
	}
}

// TestSwappedParent: somebody who may write beside the target swaps its
// directory for a link to elsewhere, again and again. What is published is
// published in the directory or refused, and nothing happens elsewhere.
func TestSwappedParent(t *testing.T) {
	k := kinds()[0]
	n := start(t, k)
	ctx, id, staging, elsewhere := t.Context(), n.create(t, k), n.path("staging"), n.path("elsewhere")
	dir, link := n.path("dir"), n.path("link")
	must(t, n.Stage(ctx, id, staging, use(k)), os.Mkdir(elsewhere, 0o700), os.Mkdir(elsewhere+"/target", 0o700), os.Mkdir(dir, 0o700), os.Symlink(elsewhere, link))
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default: // what fails for once is tried again
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	})
	published := 0
	for range 500 {
		if err := n.Publish(ctx, id, staging, dir+"/target", use(k)); err == nil {
			published++
		}
		all, err := mount.AtOrBelow(elsewhere)
		must(t, err)
		if len(all) > 0 {
			t.Fatalf("mounted elsewhere: %v", all)
		}
		_ = n.Unpublish(ctx, id, dir+"/target")
	}
	close(stop)
	attacker.Wait()
	t.Logf("published %d times of 500", published)
	if _, err := os.Stat(elsewhere + "/target"); err != nil {
		t.Errorf("removed elsewhere: %v", err)
	}
	for _, name := range []string{dir, link} { // whichever the directory is now
		if fi, err := os.Lstat(name); err == nil && fi.IsDir() {
			must(t, n.Unpublish(ctx, id, name+"/target"))
		}
	}
	must(t, n.Unstage(ctx, id, staging))
}
