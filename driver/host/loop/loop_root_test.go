//go:build root

package loop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func makeFile(t *testing.T, dir string, size int64) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: run it as root")
	}
	f, err := os.OpenFile(filepath.Join(dir, "image"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Detach(f); err != nil {
			t.Errorf("clean up: %v", err)
		}
		f.Close()
	})
	return f
}

func size(t *testing.T, d Device) int64 {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLife(t *testing.T) {
	f := makeFile(t, t.TempDir(), 1<<20)
	d, err := Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	if !d.DirectIO {
		t.Errorf("no direct I/O: %+v", d)
	}
	if again, err := Attach(f); err != nil || again.Path != d.Path {
		t.Errorf("attached again: %+v, %v; was %+v", again, err, d)
	}
	if err := f.Truncate(2 << 20); err != nil {
		t.Fatal(err)
	}
	if err := Resize(d); err != nil {
		t.Fatal(err)
	}
	if got := size(t, d); got != 2<<20 {
		t.Errorf("after growing the device has %d bytes", got)
	}
	for range 2 {
		if err := Detach(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := Find(f); found || err != nil {
		t.Errorf("still there after Detach: %v", err)
	}
}

// TestFoundByInode: a renamed file is found, and another file at the old path
// is not taken for it.
func TestFoundByInode(t *testing.T) {
	dir := t.TempDir()
	f := makeFile(t, dir, 1<<20)
	d, err := Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, "renamed")); err != nil {
		t.Fatal(err)
	}
	other := makeFile(t, dir, 1<<20)
	if _, found, err := Find(other); found || err != nil {
		t.Errorf("another file at the same path has a device (%v)", err)
	}
	renamed, err := os.OpenFile(filepath.Join(dir, "renamed"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer renamed.Close()
	if got, found, err := Find(renamed); !found || err != nil || got.Path != d.Path {
		t.Errorf("the renamed file has %+v, %v, %v", got, found, err)
	}
}

func TestDetachRefusesWhatIsHeld(t *testing.T) {
	f := makeFile(t, t.TempDir(), 1<<20)
	d, err := Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	// A mount holds its device like this.
	fd, err := unix.Open(d.Path, unix.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Detach(f); !errors.Is(err, ErrInUse) {
		t.Errorf("Detach of a held device: %v", err)
	}
	if again, err := Attach(f); err != nil || again.Path != d.Path {
		t.Errorf("after a refused Detach: %+v, %v", again, err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if err := Detach(f); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyIsOfOneFile: a device that was made read-only is not so for the
// next file behind it, whoever let go of the one before.
func TestReadOnlyIsOfOneFile(t *testing.T) {
	before, after := makeFile(t, t.TempDir(), 1<<20), makeFile(t, t.TempDir(), 1<<20)
	readOnly := func(d Device) bool {
		dev, err := os.Open(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		is, err := unix.IoctlGetInt(int(dev.Fd()), unix.BLKROGET)
		if err != nil {
			t.Fatal(err)
		}
		return is != 0
	}
	protect := func() (d Device, n int) {
		d, err := Attach(before)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := os.Open(d.Path)
		if err == nil {
			err = errors.Join(unix.IoctlSetPointerInt(int(dev.Fd()), unix.BLKROSET, 1), dev.Close())
		}
		if err == nil {
			_, err = fmt.Sscanf(d.Path, "/dev/loop%d", &n)
		}
		if err != nil || !readOnly(d) {
			t.Fatalf("it cannot be made read-only: %v", err)
		}
		return d, n
	}
	d, _ := protect()
	if err := Detach(before); err != nil {
		t.Fatal(err)
	}
	if readOnly(d) {
		t.Errorf("%s is still read-only", d.Path)
	}
	for { // until nobody else takes the device in between
		d, n := protect()
		command := exec.Command("losetup", "--detach", d.Path)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		err := configure(n, after, []way{{512, 0}})
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if readOnly(d) {
			t.Errorf("%s is read-only for the next file", d.Path)
		}
		return
	}
}

func TestManyAtOnce(t *testing.T) {
	var files []*os.File
	for range 20 { // more than the eight that exist at start
		files = append(files, makeFile(t, t.TempDir(), 1<<20))
	}
	paths := make([]string, len(files))
	var wg sync.WaitGroup
	for i, f := range files {
		wg.Go(func() {
			d, err := Attach(f)
			if err != nil {
				t.Error(err)
			}
			paths[i] = d.Path
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, p := range paths {
		if seen[p] {
			t.Errorf("%s was given twice", p)
		}
		seen[p] = true
	}
}
