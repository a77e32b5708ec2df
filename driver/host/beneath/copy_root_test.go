//go:build root

package beneath

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"golang.org/x/sys/unix"
)

// TestCopyTree copies what a consumer may have made, and compares every inode.
func TestCopyTree(t *testing.T) {
	for _, fsType := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := loopfs.New(t, loopfs.Options{Type: fsType}).Dir
			d := open(t, dir)
			must(t, d.Mkdir("from", 0o755), d.Mkdir("to", 0o700))
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			furnish(t, from)
			deep(t, filepath.Join(from, "locked"), 1200)
			want := describe(t, from)
			before, used := descriptors(t), allocated(t, dir)
			must(t, d.CopyTree(t.Context(), "from", "to", unwatched, "trusted.left-out"))
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			for name, is := range describe(t, to) {
				if want[name] != is {
					t.Errorf("%q is %s, its source %s", name, is, want[name])
				}
				delete(want, name)
			}
			for name := range want {
				t.Errorf("%q was not copied", name)
			}
			if grown := allocated(t, dir) - used; fsType != "ext4" && grown > 8<<20 {
				t.Errorf("%d bytes more are allocated, nothing is shared", grown)
			}
			must(t, os.WriteFile(filepath.Join(to, "plain"), []byte("changed"), 0o600))
			if data, err := os.ReadFile(filepath.Join(from, "plain")); err != nil || !bytes.Equal(data, content()) {
				t.Errorf("writing to the copy changed its source (%v)", err)
			}
		})
	}
}

func content() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 1<<20) }

// furnish makes one of everything.
func furnish(t *testing.T, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(in("plain"), content(), 0o640), os.WriteFile(in("empty"), nil, 0), os.Chown(in("plain"), 1234, 5678),
		os.Mkdir(in("sub"), 0o755), os.Link(in("plain"), in("sub/hard")), os.Link(in("plain"), in("hard too")),
		os.Symlink("/etc/passwd", in("outside")), os.Symlink("nowhere", in("sub/dangling")), unix.Lchown(in("outside"), 7, 8),
		unix.Mkfifo(in("fifo"), 0o604), unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(in("socket"), unix.S_IFSOCK|0o700, 0),
		os.Mkdir(in("new\nline"), 0o755), os.WriteFile(in("new\nline/\xff\xfe"), []byte("x"), 0o600),
		os.WriteFile(in("setuid"), []byte("x"), 0o755), os.Chown(in("setuid"), 99, 99), unix.Chmod(in("setuid"), 0o6755),
		os.Mkdir(in("locked"), 0o755), os.Mkdir(in("sticky"), 0o755), unix.Chmod(in("sticky"), 0o3777))
	must(t, unix.Setxattr(in("plain"), "user.note", []byte("a\x00b"), 0), unix.Setxattr(in("sub"), "trusted.note", nil, 0),
		unix.Setxattr(dir, "trusted.left-out", []byte("x"), 0))
	sparse, err := os.Create(in("sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("x"), 100<<20)
	must(t, err, sparse.Truncate(200<<20), sparse.Close())
	must(t, os.Chown(in("sub"), 42, 43), os.Chmod(in("locked"), 0))
	past := time.Unix(1_000_000_000, 123_456_789)
	for _, name := range []string{"plain", "sub", "sticky", "fifo"} {
		must(t, os.Chtimes(in(name), past, past))
	}
}

// describe tells everything about every name in a tree that a copy keeps.
func describe(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	links := map[uint64]string{}
	// Not into the chain below "locked": its paths are longer than PATH_MAX.
	must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, name)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(name, &st))
		is := fmt.Sprintf("mode %o owner %d:%d rdev %d mtime %d.%d links %d", st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(name)
			must(t, err)
			is += fmt.Sprintf(" size %d sparse %v data %x", st.Size, st.Blocks*512 < st.Size/2, sha256.Sum256(data))
			if first, ok := links[st.Ino]; ok {
				is += " same as " + first
			}
			links[st.Ino] = rel
		case unix.S_IFLNK:
			target, err := os.Readlink(name)
			must(t, err)
			is += " to " + target
		}
		for _, a := range []string{"user.note", "trusted.note"} {
			value := make([]byte, 16)
			if n, err := unix.Lgetxattr(name, a, value); err == nil {
				is += fmt.Sprintf(" %s %q", a, value[:n])
			}
		}
		out[rel] = is
		if e.IsDir() && strings.Count(rel, "/") > 20 {
			return fs.SkipDir
		}
		return nil
	}))
	return out
}

func allocated(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Syncfs(int(f.Fd())), unix.Fstatfs(int(f.Fd()), &st), f.Close())
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// TestCopyTreeRefusesMounts: what is mounted in a tree is neither copied nor
// silently left out.
func TestCopyTreeRefusesMounts(t *testing.T) {
	needRoot(t)
	dir, outside := t.TempDir(), t.TempDir()
	d := open(t, dir)
	must(t, os.MkdirAll(filepath.Join(dir, "from/bound"), 0o700), d.Mkdir("to", 0o700))
	bindMount(t, outside, filepath.Join(dir, "from/bound"))
	if err := d.CopyTree(t.Context(), "from", "to", unwatched); !errors.Is(err, ErrMount) {
		t.Errorf("CopyTree over a mount: %v", err)
	}
}

// TestCopyTreeWhileItChanges: a consumer that swaps directories for symlinks,
// renames and removes while its tree is copied gets no file from outside, and
// does not make the copy fail.
func TestCopyTreeWhileItChanges(t *testing.T) {
	needRoot(t)
	dir, outside := t.TempDir(), t.TempDir()
	d := open(t, dir)
	must(t, d.Mkdir("from", 0o755), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Errors do not matter: what it does is only to be in the way.
			name := filepath.Join(dir, "from", fmt.Sprint(i%7))
			_ = os.MkdirAll(filepath.Join(name, "sub"), 0o755)
			_ = os.WriteFile(filepath.Join(name, "sub/secret"), []byte("own"), 0o600)
			_ = os.Rename(name, name+"-moved")
			_ = os.Symlink(outside, name)
			_ = os.Remove(name)
			_ = os.Symlink(filepath.Join(outside, "secret"), name)
			_ = os.RemoveAll(name + "-moved")
			_ = os.Remove(name)
		}
	}()
	for i := range 200 {
		to := fmt.Sprintf("to-%d", i)
		must(t, d.Mkdir(to, 0o700), d.CopyTree(t.Context(), "from", to, unwatched))
		must(t, filepath.WalkDir(filepath.Join(dir, to), func(name string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				data, err := os.ReadFile(name)
				if string(data) == "secret" {
					t.Errorf("%s is from outside", name)
				}
				return err
			}
			return err
		}), d.RemoveTree(t.Context(), to))
	}
	close(stop)
	<-stopped
}

func unwatched(context.Context, int64) error { return nil }
