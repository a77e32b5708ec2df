package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// background outlives the test's own context, for cleaning up.
func background() context.Context { return context.Background() }

// consumer uses a volume as a pod would: as a directory or as a block device.
type consumer struct {
	dir    string // a filesystem volume, mounted where need be
	device string // a block volume
	fsType string // of what is mounted from the device
	umount func() error
}

// use attaches and mounts a volume; the volume stays in use until done.
func (e *env) use(t *testing.T, id volume.ID) *consumer {
	t.Helper()
	src, err := e.b.Attach(t.Context(), id)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	if (src.Dir == "") == (src.Device == "") {
		t.Fatalf("Attach says %+v, which is not one of directory and device", src)
	}
	switch {
	case src.Dir != "":
		return &consumer{dir: src.Dir, umount: func() error { return nil }}
	case e.Spec.Mode == volume.Block:
		return &consumer{device: src.Device, umount: func() error { return nil }}
	}
	return mountSource(t, src)
}

func mountSource(t *testing.T, src backend.Source) *consumer {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount(src.Device, dir, src.FSType, syscall.MS_NOSUID|syscall.MS_NODEV, ""); err != nil {
		t.Fatalf("mount %s as %s: %v", src.Device, src.FSType, err)
	}
	mounted := true
	umount := func() error {
		if !mounted {
			return nil
		}
		mounted = false
		return mount.Unmount(dir)
	}
	t.Cleanup(func() {
		if err := umount(); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return &consumer{dir: dir, device: src.Device, fsType: src.FSType, umount: umount}
}

// done unmounts and detaches.
func (e *env) done(t *testing.T, id volume.ID, c *consumer) {
	t.Helper()
	if err := c.umount(); err != nil {
		t.Fatalf("unmount: %v", err)
	}
	if err := e.b.Detach(t.Context(), id); err != nil {
		t.Fatalf("Detach: %v", err)
	}
}

const payloadSize = 1 << 20

// payload is recognisable and cannot be compressed away by a filesystem.
func payload(tag string) []byte {
	return bytes.Repeat([]byte(tag+"0123456789abcdef"), payloadSize/(len(tag)+16)+1)[:payloadSize]
}

func (c *consumer) put(t *testing.T, tag string) {
	t.Helper()
	var err error
	if c.dir != "" {
		err = writeSynced(filepath.Join(c.dir, tag), os.O_CREATE|os.O_TRUNC, payload(tag))
	} else {
		err = writeSynced(c.device, 0, payload(tag))
	}
	if err != nil {
		t.Fatalf("write %s: %v", tag, err)
	}
}

func (c *consumer) require(t *testing.T, tag string) {
	t.Helper()
	name := c.device
	if c.dir != "" {
		name = filepath.Join(c.dir, tag)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatalf("data is gone: %v", err)
	}
	defer f.Close()
	got := make([]byte, payloadSize)
	if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, payload(tag)) {
		t.Fatalf("data of %s is not what was written (%v)", tag, err)
	}
}

// fill writes until it fails or until limit bytes, and says how many went in.
func (c *consumer) fill(limit int64) (written int64, err error) {
	asContainer(func() { written, err = c.write(limit) })
	return written, err
}

// asContainer runs f on a thread of its own without CAP_SYS_RESOURCE, which a
// container has only when it is privileged, and with which ext4 ignores quotas
// (linux: fs/quota/dquot.c, ignore_hardlimit).
func asContainer(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if unix.Capget(&header, &caps[0]) == nil {
			caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
			_ = unix.Capset(&header, &caps[0])
		}
		f()
	}()
	<-done
}

func (c *consumer) write(limit int64) (int64, error) {
	name := c.device
	flags := 0
	if c.dir != "" {
		name, flags = filepath.Join(c.dir, "fill"), os.O_CREATE|os.O_TRUNC
	}
	f, err := os.OpenFile(name, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return 0, err
	}
	block := payload("fill")
	var total int64
	for total < limit && err == nil {
		var n int
		n, err = f.Write(block)
		total += int64(n)
	}
	return total, errors.Join(err, f.Sync(), f.Close())
}

func writeSynced(name string, flags int, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// isFull reports whether err is how a volume at its limit answers: ENOSPC
// (XFS, images, devices) or EDQUOT (ext4, btrfs).
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// loopsBelow lists loop devices over files below dir. Paths are good enough
// here: a test's directory is its own.
func loopsBelow(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(string(data), dir+"/") {
			out = append(out, fmt.Sprintf("%s over %s", f, bytes.TrimSpace(data)))
		}
	}
	return out
}

// mountsBelow lists mounts below dir, not on it (proc_pid_mountinfo(5)).
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			out = append(out, fields[4])
		}
	}
	return out
}
