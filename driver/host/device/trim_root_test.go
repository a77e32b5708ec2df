//go:build root

package device_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
)

// TestTrimAfterRemove: what was removed a moment ago is trimmed, too. XFS frees
// it when it has the time, a few milliseconds later if it has nothing else to do.
func TestTrimAfterRemove(t *testing.T) {
	disk := loopfs.New(t, loopfs.Options{Type: "xfs", Size: 320 << 20})
	root, err := os.Open(disk.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	secret := bytes.Repeat([]byte("never to be read again\n"), 8<<10)
	file := filepath.Join(disk.Dir, "file")
	for round := range 3 {
		if err := os.WriteFile(file, secret, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Syncfs(int(root.Fd())); err != nil {
			t.Fatal(err)
		}
		if !onDisk(t, disk.Device, secret[:4096]) {
			t.Fatal("what was written is not on the disk, so the test cannot tell")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := device.Trim(root); err != nil {
			t.Fatal(err)
		}
		if onDisk(t, disk.Device, secret[:4096]) {
			t.Fatalf("round %d: what was removed is still on the disk", round)
		}
	}
}

// onDisk reports whether a disk has a block, past what is cached of it.
func onDisk(t *testing.T, disk string, block []byte) bool {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.BLKFLSBUF); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(text, block)
}
