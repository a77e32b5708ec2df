//go:build root

// Package loopfs makes filesystems on loop devices for tests that run as
// root, and takes them away when the test ends, passed or failed.
package loopfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
	"golang.org/x/sys/unix"
)

// Options say what filesystem to make.
type Options struct {
	Type  string   // btrfs, xfs or ext4
	Size  int64    // bytes, sparse; 0 takes 1 GiB
	Mkfs  []string // more arguments for mkfs
	Mount []string // mount options
}

// FS is a mounted filesystem.
type FS struct {
	Dir    string // where it is mounted
	Device string
}

// packages name what installs mkfs for a type on Debian.
var packages = map[string]string{"btrfs": "btrfs-progs", "xfs": "xfsprogs", "ext4": "e2fsprogs"}

// NeedRoot fails the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: run it as root, or leave out -tags root")
	}
}

// NeedTool fails the test, naming the Debian package, if a command is missing.
func NeedTool(t testing.TB, tool, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%v: install it with: apt-get install %s", err, pkg)
	}
}

// New makes and mounts a filesystem in a temporary directory of the test.
func New(t testing.TB, o Options) FS {
	t.Helper()
	NeedRoot(t)
	NeedTool(t, "mkfs."+o.Type, packages[o.Type])
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	base := t.TempDir()
	file, err := os.Create(filepath.Join(base, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"mkfs." + o.Type, "-q"}, o.Mkfs...)
	if _, err := (run.Exec{}).Run(t.Context(), append(argv, file.Name())...); err != nil {
		t.Fatal(err)
	}
	dev, err := loop.Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	fs := FS{Dir: filepath.Join(base, "mnt"), Device: dev.Path}
	t.Cleanup(func() { remove(t, file.Name(), fs.Dir) })
	if err := os.Mkdir(fs.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mount.Device(fs.Device, fs.Dir, o.Type, o.Mount); err != nil {
		t.Fatal(err)
	}
	return fs
}

// remove takes everything away again: the mounts of images in the filesystem,
// their devices, binds of its directories, itself, its own device.
func remove(t testing.TB, file, dir string) {
	err := errors.Join(detachBelow(dir), unmountAll(dir), detach(file))
	if err != nil {
		t.Errorf("clean up the filesystem at %s: %v", dir, err)
	}
}

// unmountAll unmounts whatever is of the filesystem at dir, anywhere.
func unmountAll(dir string) error {
	at, err := mount.At(dir)
	if err != nil || len(at) == 0 {
		return err
	}
	mounts, err := mount.OfDevice(at[0].Major, at[0].Minor)
	for i := len(mounts) - 1; i >= 0; i-- {
		err = errors.Join(err, unmount(mounts[i].Point))
	}
	return err
}

// unmount waits for users in passing, then lets the last of them finish it.
func unmount(point string) error {
	if mount.Unmount(point) == nil {
		return nil
	}
	return syscall.Unmount(point, syscall.MNT_DETACH)
}

// detachBelow lets go of loop devices over files of the filesystem at dir.
func detachBelow(dir string) error {
	var errs error
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(name) == ".img" {
			errs = errors.Join(errs, detach(name))
		}
		return nil
	})
	return errs
}

func detach(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	d, found, err := loop.Find(f)
	if err != nil || !found {
		return err
	}
	mounts, err := mount.List()
	for _, m := range mounts {
		if m.Source == d.Path {
			err = errors.Join(err, unmount(m.Point))
		}
	}
	return errors.Join(err, release(f, d))
}

// release detaches a device. Somebody on the machine who made a mount
// namespace while the filesystem was mounted has a copy of the mount; then the
// device is told to go with it.
func release(f *os.File, d loop.Device) error {
	err := loop.Detach(f)
	if !errors.Is(err, loop.ErrInUse) {
		return err
	}
	dev, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0), dev.Close())
}
