//go:build root

package loopfs

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mount"
)

// Disks makes blank disks of that many bytes, sparse, and gives their devices.
func Disks(t testing.TB, n int, size int64) []string {
	t.Helper()
	NeedRoot(t)
	base := t.TempDir()
	var out []string
	for i := range n {
		name := filepath.Join(base, "disk"+strconv.Itoa(i))
		out = append(out, disk(t, name, size))
	}
	return out
}

func disk(t testing.TB, name string, size int64) string {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d, err := loop.Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := detach(name); err != nil {
			t.Errorf("clean up the disk %s: %v", name, err)
		}
	})
	return d.Path
}

// DeviceOf is the device of the filesystem that is mounted at dir.
func DeviceOf(t testing.TB, dir string) string {
	t.Helper()
	m, err := mount.Containing(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m.Source
}
