package device

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moby/sys/mountinfo"
)

// Disk is a block device that can be told from all others, also after it got
// another name.
type Disk struct {
	Path     string // as the kernel calls it now: /dev/nvme1n1
	Identity string // what it is called for good: see Identify
	Size     int64  // bytes
}

// ErrNoIdentity says that nothing tells a device from others.
var ErrNoIdentity = errors.New("the device has no identity that lasts (no WWN, serial number or partition UUID)")

// sysBlock is where the kernel shows every disk and partition, by its name.
const sysBlock = "/sys/class/block"

// identities are where the kernel tells what a device is, below its folder in
// sysfs, best first (Documentation/ABI/stable/sysfs-block and sysfs-block-dm).
// The kind is part of the identity, so that two ways never tell the same.
var identities = []struct{ kind, file string }{
	{"wwid", "wwid"},        // NVMe
	{"wwid", "device/wwid"}, // SCSI and SATA
	{"cid", "device/cid"},   // eMMC and SD cards
	{"serial", "serial"},    // virtio
	{"dm", "dm/uuid"},       // logical volumes, multipath
	{"loop", "loop/backing_file"},
}

// Identify reads what tells the device of that kernel name (sda) from all
// others for good: its World Wide Name or serial number, the UUID of a
// partition, the file behind a loop device. ErrNoIdentity if there is nothing.
func Identify(name string) (string, error) {
	dir := filepath.Join(sysBlock, name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return identifyPartition(name)
	}
	for _, i := range identities {
		data, err := os.ReadFile(filepath.Join(dir, i.file))
		value := strings.Join(strings.Fields(string(data)), "_")
		if err != nil || value == "" || strings.HasSuffix(value, "_(deleted)") {
			continue
		}
		return i.kind + ":" + value, nil
	}
	return "", fmt.Errorf("%s: %w", name, ErrNoIdentity)
}

// identifyPartition reads the UUID of a partition from the kernel, where it
// tells (Linux 6.10), else from the links that udev makes.
func identifyPartition(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(sysBlock, name, "uevent"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if uuid, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTUUID="); ok && uuid != "" {
			return "partuuid:" + uuid, nil
		}
	}
	links, err := filepath.Glob("/dev/disk/by-partuuid/*")
	if err != nil {
		return "", err
	}
	for _, link := range links {
		if to, err := filepath.EvalSymlinks(link); err == nil && filepath.Base(to) == name {
			return "partuuid:" + filepath.Base(link), nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrNoIdentity)
}

// Disks lists the devices that have an identity. Two of one identity are both
// there: whoever looks for one of them cannot tell which it is.
func Disks() ([]Disk, error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var out []Disk
	for _, e := range entries {
		identity, err := Identify(e.Name())
		if err != nil {
			continue // nothing that could be recorded, or gone meanwhile
		}
		size, err := sysSize(e.Name())
		if err != nil || size == 0 {
			continue
		}
		out = append(out, Disk{Path: "/dev/" + e.Name(), Identity: identity, Size: size})
	}
	return out, nil
}

// sysSize reads a size in bytes; sysfs counts in 512 whatever the sectors are.
func sysSize(name string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(sysBlock, name, "size"))
	if err != nil {
		return 0, err
	}
	var sectors int64
	_, err = fmt.Sscan(string(data), &sectors)
	return sectors * 512, err
}

// Match gives the kernel names (sda) of the block devices that a pattern of
// filepath.Glob finds. What is no block device is left out.
func Match(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern %s: %w", pattern, err)
	}
	var out []string
	for _, path := range found {
		to, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue // a link to a device that is gone
		}
		major, minor, err := Number(to)
		if err != nil {
			continue
		}
		// A node may have any name; the kernel knows its device by the number.
		sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
		if err != nil {
			continue
		}
		if name := filepath.Base(sys); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Holder says who has the device of that kernel name, as far as this mount
// namespace and sysfs show it; "" is nobody that is known. What it cannot see
// (a mount in another namespace), Exclusive does.
func Holder(name string) (string, error) {
	dir := filepath.Join(sysBlock, name)
	held, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(held) > 0 {
		return "it is part of " + held[0].Name(), nil
	}
	parts, err := filepath.Glob(filepath.Join(dir, "*", "partition"))
	if err != nil {
		return "", err
	}
	if len(parts) > 0 {
		return "it has the partition " + filepath.Base(filepath.Dir(parts[0])), nil
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, file := range backing {
		if data, err := os.ReadFile(file); err == nil && string(bytes.TrimSpace(data)) == "/dev/"+name {
			return "it is behind " + filepath.Base(filepath.Dir(filepath.Dir(file))), nil
		}
	}
	return mountedOn(dir)
}

func mountedOn(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return "", err
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(data), "%d:%d", &major, &minor); err != nil {
		return "", err
	}
	at, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Major != major || i.Minor != minor, false
	})
	if err != nil || len(at) == 0 {
		return "", err
	}
	return "it is mounted at " + at[0].Mountpoint, nil
}

// ErrInUse says that a device is mounted, or somebody has it for himself.
var ErrInUse = errors.New("device in use")

// Exclusive opens a device for this process alone: while it is open nobody
// mounts it or makes it part of another device, and ErrInUse if somebody has,
// in whatever namespace (open(2), O_EXCL on a block device).
func Exclusive(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: %s is mounted, or part of another device", ErrInUse, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
