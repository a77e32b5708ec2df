//go:build root

package directory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// projectPools are the filesystems that hold project limits.
var projectPools = []loopfs.Options{
	{Type: "xfs", Mount: []string{"prjquota"}},
	{Type: "ext4", Mkfs: []string{"-O", "quota,project", "-E", "quotatype=prjquota"}, Mount: []string{"prjquota"}},
}

// onEach runs a test on each of projectPools.
func onEach(t *testing.T, test func(t *testing.T, dir string)) {
	for _, pool := range projectPools {
		t.Run(pool.Type, func(t *testing.T) {
			needProjectQuota(t)
			test(t, loopfs.New(t, pool).Dir)
		})
	}
}

func opened(t *testing.T, o Options) *Directory {
	t.Helper()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func ensure(t *testing.T, b *Directory, s volume.Spec) {
	t.Helper()
	if _, err := b.Ensure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// makeFiles makes empty files until one cannot be made, at most n.
func makeFiles(t *testing.T, dir, prefix string, n int) int {
	t.Helper()
	for i := range n {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s%d", prefix, i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if isFull(err) {
			return i
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return n
}

// TestProjectAttributes: a limit on inodes holds to the file, rises, falls
// below what is there, goes, and is in the report; a soft limit grows along;
// a copy has those that were asked for it.
func TestProjectAttributes(t *testing.T) {
	onEach(t, func(t *testing.T, pool string) {
		b := opened(t, Options{Dir: pool})
		s := volume.Spec{ID: "v", Mode: volume.Filesystem, Size: 64 << 20, Attributes: volume.Attributes{Inodes: 20, SoftLimit: 50}}
		ensure(t, b, s)
		dir := filepath.Join(pool, "volumes", "v")
		if n := makeFiles(t, dir, "a", 100); n != 19 { // the root is one
			t.Errorf("%d files went into a volume of 20 inodes", n)
		}
		u, err := b.Usage(t.Context(), "v", "")
		if err != nil || u.TotalInodes != 20 || u.UsedInodes != 20 || u.AvailableInodes != 0 {
			t.Errorf("usage: %+v, %v", u, err)
		}
		s.Attributes.Inodes = 30
		ensure(t, b, s)
		if n := makeFiles(t, dir, "b", 100); n != 10 {
			t.Errorf("%d more files, 10 more allowed", n)
		}
		s.Attributes.Inodes = 10
		ensure(t, b, s)
		if n := makeFiles(t, dir, "c", 100); n != 0 {
			t.Errorf("%d files above the limit", n)
		}
		if u, err := b.Usage(t.Context(), "v", ""); err != nil || u.UsedInodes != 30 || u.AvailableInodes != 0 {
			t.Errorf("usage above the limit: %+v, %v", u, err)
		}
		s.Attributes.Inodes, s.Size = 0, 128<<20
		ensure(t, b, s)
		if n := makeFiles(t, dir, "d", 50); n != 50 {
			t.Errorf("%d files without a limit", n)
		}
		_, q := projectOf(t, filepath.Join(pool, "volumes", "v"))
		if q.Limits != (quota.Limits{Bytes: 128 << 20, SoftBytes: 64 << 20}) {
			t.Errorf("after growth and without a limit on inodes: %+v", q)
		}
		c := s
		c.ID, c.Attributes = "copy", volume.Attributes{Inodes: 500}
		if _, err := b.Clone(t.Context(), "v", c, nil); err != nil {
			t.Fatal(err)
		}
		if _, q := projectOf(t, filepath.Join(pool, "volumes", "copy")); q.Limits != (quota.Limits{Bytes: 128 << 20, Inodes: 500}) {
			t.Errorf("the copy: %+v", q)
		}
		for _, bad := range []volume.Attributes{{Inodes: -1}, {SoftLimit: 100}} {
			s.Attributes = bad
			if _, err := b.Ensure(t.Context(), s); !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

// TestProjectGrace: above the soft limit writes go on for the grace time, then
// end below the hard one, and go on again once the volume is below. A pool
// that names no time leaves the one that is there.
func TestProjectGrace(t *testing.T) {
	onEach(t, func(t *testing.T, pool string) {
		if err := opened(t, Options{Dir: pool, Grace: time.Second}).Close(); err != nil {
			t.Fatal(err)
		}
		b := opened(t, Options{Dir: pool})
		if d, err := quota.Grace(b.dir.File()); err != nil || d != time.Second {
			t.Fatalf("the grace time is %s, %v", d, err)
		}
		ensure(t, b, volume.Spec{ID: "v", Mode: volume.Filesystem, Size: 32 << 20, Attributes: volume.Attributes{SoftLimit: 50}})
		f, err := os.Create(filepath.Join(pool, "volumes", "v", "data"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// Most of it below the limit, where nothing is timed, and then a little
		// more: what rises above is always taken, and begins the time.
		const soft, above = 16 << 20, 16<<20 + 4096
		_, err = f.Write(make([]byte, soft-64<<10))
		if err := errors.Join(err, f.Sync()); err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(make([]byte, above-(soft-64<<10)))
		if err := errors.Join(err, f.Sync()); err != nil {
			t.Fatalf("above the soft limit: %v", err)
		}
		// Each turn needs a block and gives it back, so that the hard limit
		// never comes near.
		for deadline := time.Now().Add(time.Minute); ; {
			_, err := f.WriteAt(make([]byte, 4096), above)
			if err == nil {
				err = f.Sync()
			}
			if isFull(err) {
				break
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("above the soft limit for long, and the last write says %v", err)
			}
			if err := f.Truncate(above); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Truncate(1<<20), f.Sync()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, soft/2), 1<<20); err != nil {
			t.Errorf("once below the soft limit: %v", err)
		}
	})
}

// projectOf reads the project of a directory and its quota.
func projectOf(t *testing.T, dir string) (quota.Project, quota.Quota) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, _, err := quota.ProjectOf(f)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quota.Get(f, id)
	if err != nil {
		t.Fatal(err)
	}
	return id, q
}
