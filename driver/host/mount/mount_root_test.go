//go:build root

package mount_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func unmountLater(t *testing.T, target string) {
	t.Cleanup(func() { must(t, mount.Unmount(target), mount.Unmount(target)) })
}

// TestBindByDescriptor: what was opened is bound, whatever its name has become,
// and the flags hold for this mount alone.
func TestBindByDescriptor(t *testing.T) {
	loopfs.NeedRoot(t)
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	must(t, os.Mkdir(source, 0o755), os.Mkdir(target, 0o755), os.WriteFile(source+"/file", []byte("x"), 0o644))
	f, err := os.Open(source)
	must(t, err)
	defer f.Close()
	must(t, os.Rename(source, source+"2"), os.Symlink("/etc", source))
	must(t, mount.Bind(f, target, mount.Flags{ReadOnly: true, NoSuid: true, NoDev: true}))
	unmountLater(t, target)
	if data, err := os.ReadFile(target + "/file"); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if err := os.WriteFile(target+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing through a read-only bind: %v", err)
	}
	must(t, os.WriteFile(source+"2/new", nil, 0o644))
	at, err := mount.At(target)
	must(t, err)
	if len(at) != 1 || !at[0].ReadOnly() {
		t.Errorf("mounts at the target: %+v", at)
	}
	of, err := mount.Of(source + "2")
	must(t, err)
	if len(of) != 1 || of[0].Point != target {
		t.Errorf("mounts of the source: %+v", of)
	}
	below, err := mount.AtOrBelow(dir)
	must(t, err)
	if len(below) != 1 {
		t.Errorf("mounts below: %+v", below)
	}
	must(t, mount.Unmount(target), mount.Unmount(target))
	if mounted, err := mount.IsMounted(target); mounted || err != nil {
		t.Errorf("still mounted: %v", err)
	}
	if err := mount.BindPath(source, target, mount.Flags{}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("bind of a symlink: %v", err)
	}
}

func TestBindOfADeviceNode(t *testing.T) {
	loopfs.NeedRoot(t)
	target := filepath.Join(t.TempDir(), "device")
	must(t, os.WriteFile(target, nil, 0o600), mount.BindPath("/dev/null", target, mount.Flags{}))
	unmountLater(t, target)
	st, err := os.Stat(target)
	must(t, err)
	if st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestSetFlags(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "ext4", Size: 64 << 20})
	must(t, mount.RemountReadOnly(fs.Dir))
	if err := os.WriteFile(fs.Dir+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
}

func TestPoolMount(t *testing.T) {
	fs := loopfs.New(t, loopfs.Options{Type: "ext4", Size: 64 << 20})
	sub := filepath.Join(fs.Dir, "sub")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Mkdir(sub, 0o755), os.Symlink(fs.Dir, link))
	for path, isPoint := range map[string]bool{fs.Dir: true, link: true, sub: false} {
		p, err := mount.PoolMount(path)
		must(t, err)
		if p.IsMountPoint != isPoint || p.FSType != "ext4" || p.Source != fs.Device || p.Root != "/" || p.Point != fs.Dir {
			t.Errorf("%s: %+v", path, p)
		}
	}
	must(t, mount.BindPath(sub, sub, mount.Flags{}))
	unmountLater(t, sub)
	if p, err := mount.PoolMount(sub); err != nil || !p.IsMountPoint || p.Root != "/sub" {
		t.Errorf("a bind: %+v, %v", p, err)
	}
	if _, err := mount.PoolMount(fs.Dir + "/absent"); !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("absent: %v", err)
	}
}

// TestGrow grows a filesystem, mounted, to the new size of its device, and
// leaves alone one that fills it.
func TestGrow(t *testing.T) {
	for fsType, size := range map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20} {
		t.Run(fsType, func(t *testing.T) {
			fs := loopfs.New(t, loopfs.Options{Type: fsType, Size: size})
			must(t, os.WriteFile(fs.Dir+"/file", []byte("before"), 0o600))
			disk, err := os.OpenFile(filepath.Join(filepath.Dir(fs.Dir), "disk"), os.O_RDWR, 0)
			must(t, err)
			defer disk.Close()
			must(t, mount.Grow(fs.Dir), disk.Truncate(2*size))
			d, found, err := loop.Find(disk)
			if !found {
				t.Fatal("no device", err)
			}
			before := total(t, fs.Dir)
			must(t, loop.Resize(d))
			err = mount.Grow(fs.Dir)
			if fsType == "ext4" && !hasSysResource(t) {
				if !errors.Is(err, unix.EPERM) {
					t.Errorf("without CAP_SYS_RESOURCE: %v", err)
				}
				return
			}
			must(t, err, mount.Grow(fs.Dir))
			if after := total(t, fs.Dir); after < before+size*9/10 {
				t.Errorf("%d bytes before, %d after doubling %d", before, after, size)
			}
			if data, err := os.ReadFile(fs.Dir + "/file"); err != nil || string(data) != "before" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

func total(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return int64(st.Blocks) * st.Frsize
}

// hasSysResource reports whether this process may grow a mounted ext4.
func hasSysResource(t *testing.T) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	must(t, unix.Capget(&header, &caps[0]))
	return caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
