package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// folders that a machine finds on its disk at boot.
var folders = []string{
	"dev", "etc", "mnt", "mnt/disks", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var",
	"var/lib", "var/lib/kubelet", "var/lib/containerd", "var/log", "var/log/pods", "var/log/containers", "etc/cni/net.d",
}

// fromEtc are the parts of the host's configuration that commands of a node rely on.
var fromEtc = []string{
	"alternatives", "ca-certificates", "debian_version", "ethertypes", "group", "gshadow", "host.conf", "iproute2",
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "login.defs", "mke2fs.conf", "netconfig",
	"nsswitch.conf", "os-release", "passwd", "protocols", "rpc", "services", "ssl", "timezone", "xattr.conf",
}

// assembleRoot builds the tree that becomes / of the machine: its own disk, the
// programs of the host read-only, and fresh kernel filesystems.
func assembleRoot(spec Spec) error {
	// From here on nothing that is mounted reaches the host, nor the other way round.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount(spec.Root, spec.Root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, dir := range folders {
		if err := os.MkdirAll(filepath.Join(spec.Root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyEtc(spec); err != nil {
		return err
	}
	if err := mountSystem(spec.Root); err != nil {
		return err
	}
	for _, b := range spec.Binds {
		if err := bindReadOnly(b.Source, filepath.Join(spec.Root, b.Target)); err != nil {
			return err
		}
	}
	for _, d := range spec.Disks {
		at := filepath.Join(spec.Root, d.Target)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := mount(d.Device, at, d.FSType, 0, ""); err != nil {
			return err
		}
	}
	for _, l := range spec.Links {
		if err := link(l.Target, filepath.Join(spec.Root, l.Path)); err != nil {
			return err
		}
	}
	return nil
}

// mountSystem mounts what every Linux system has below its root.
func mountSystem(root string) error {
	if err := bindReadOnly("/usr", filepath.Join(root, "usr")); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		target, err := os.Readlink(filepath.Join("/", dir))
		if err != nil {
			continue // this architecture has no such folder
		}
		if err := link(target, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	if err := link("/run", filepath.Join(root, "var/run")); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"proc", "proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"/sys/fs/cgroup", "sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/dev", "dev", "", unix.MS_BIND, ""},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", "dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := mount(m.source, filepath.Join(root, m.target), m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "run/lock"), 0o755); err != nil {
		return err
	}
	return shieldTunables(root)
}

// tunables are settings of the whole kernel that kubelet changes at its start.
var tunables = []string{
	"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// shieldTunables lets the machine change copies instead of the host's tunables.
func shieldTunables(root string) error {
	for _, name := range tunables {
		own := filepath.Join(root, "proc/sys", name)
		value, err := os.ReadFile(own)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		shield := filepath.Join(root, "run/tunables", name)
		if err := os.MkdirAll(filepath.Dir(shield), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(shield, value, 0o644); err != nil {
			return err
		}
		if err := mount(shield, own, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// pivot makes root the machine's / and forgets the host's.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Kubernetes wants mounts to propagate between kubelet, runtime and pods.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s %s on %s: %w", fstype, source, target, err)
	}
	return nil
}

func bindReadOnly(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func link(target, path string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

func copyEtc(spec Spec) error {
	for _, name := range fromEtc {
		if err := copyTree(filepath.Join("/etc", name), filepath.Join(spec.Root, "etc", name)); err != nil {
			return fmt.Errorf("copy /etc/%s: %w", name, err)
		}
	}
	hosts := "127.0.0.1\tlocalhost\n127.0.1.1\t" + spec.Name + "\n"
	for name, content := range map[string]string{"hosts": hosts, "hostname": spec.Name + "\n"} {
		if err := os.WriteFile(filepath.Join(spec.Root, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return link("/proc/mounts", filepath.Join(spec.Root, "etc/mtab"))
}

// copyTree copies files, folders and links; what is there already stays, for the
// machine's disk outlives a boot. Absence of the source is nil.
func copyTree(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := to + strings.TrimPrefix(path, from)
		if _, err := os.Lstat(at); err == nil && !d.IsDir() {
			return nil
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		case d.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(at, content, 0o644)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
