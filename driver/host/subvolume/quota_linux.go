package subvolume

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Group is a quota group: the level in its upper 16 bits, a number below.
// Every subvolume N has the group 0/N of its own (btrfs-qgroup(8)).
type Group uint64

const levelShift = 48

// GroupOf is the group with a number at a level.
func GroupOf(level uint16, number ID) Group { return Group(uint64(level)<<levelShift | uint64(number)) }

func (g Group) String() string {
	return fmt.Sprintf("%d/%d", uint64(g)>>levelShift, g.Number())
}

// Number is the part below the level.
func (g Group) Number() ID { return ID(uint64(g) & (1<<levelShift - 1)) }

// GroupUsage is what a group holds, in bytes, as of the last transaction
// (Commit makes one; else up to 30 seconds old).
type GroupUsage struct {
	Referenced int64 // all that is reachable from it
	Exclusive  int64 // what only it reaches, and deleting it would free
	Limit      int64 // of Referenced; 0 is none
}

// QuotaMode is how a filesystem counts.
type QuotaMode int

// The modes. Simple (Linux 6.7) charges an extent to the subvolume that wrote
// it, costs little, and puts a subvolume made inside another into the same
// groups, so it cannot escape their limits. Full counts by references and does
// not.
const (
	QuotaOff QuotaMode = iota
	QuotaFull
	QuotaSimple
)

// Quota reads how the filesystem of f counts.
func Quota(f *os.File) (QuotaMode, error) {
	mode := QuotaOff
	err := search(f, quotaTree, 0, qgroupStatusKey, 0, 0, func(i item) {
		switch flags := i.u64(16); {
		case flags&statusSimple != 0:
			mode = QuotaSimple
		case flags&statusOn != 0:
			mode = QuotaFull
		}
	})
	if err != nil && !errors.Is(err, unix.ENOENT) { // no quota tree
		return QuotaOff, fmt.Errorf("read the quota mode: %w", err)
	}
	return mode, nil
}

// EnableQuota switches quotas on: simple ones, or full ones on a kernel that
// has no others. Quotas that are on stay as they are.
func EnableQuota(f *os.File) (QuotaMode, error) {
	mode, err := Quota(f)
	if err != nil || mode != QuotaOff {
		return mode, err
	}
	err = enable(f, quotaEnableSimple)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = enable(f, quotaEnable)
	}
	if err != nil {
		return QuotaOff, err
	}
	return Quota(f)
}

// EnableFullQuota switches full quotas on, where none are.
func EnableFullQuota(f *os.File) error { return enable(f, quotaEnable) }

func enable(f *os.File, cmd uint64) error {
	args := quotaCtlArgs{cmd: cmd}
	if _, err := ioctl(f, iocQuotaCtl, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("enable quotas on %s: %w", f.Name(), err)
	}
	return nil
}

// CreateGroup makes a group; one that is there stays.
func CreateGroup(f *os.File, g Group) error {
	args := qgroupCreateArgs{create: 1, qgroupid: uint64(g)}
	if _, err := ioctl(f, iocQgroupCreate, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create quota group %s: %w", g, err)
	}
	return nil
}

// RemoveGroup removes a group; one that is not there is no error. unix.EBUSY
// while it has members or counts bytes.
func RemoveGroup(f *os.File, g Group) error {
	args := qgroupCreateArgs{qgroupid: uint64(g)}
	if _, err := ioctl(f, iocQgroupCreate, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove quota group %s: %w", g, err)
	}
	return nil
}

// Assign puts a group into one of a higher level.
func Assign(f *os.File, member, parent Group) error {
	args := qgroupAssignArgs{assign: 1, src: uint64(member), dst: uint64(parent)}
	// A positive result asks for a rescan: only of a member that holds
	// something, under full quotas.
	if _, err := ioctl(f, iocQgroupAssign, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("put quota group %s into %s: %w", member, parent, err)
	}
	return nil
}

// Unlimited takes a limit away.
const Unlimited = -1

// Limit sets how many bytes a group may reference; it holds at once.
func Limit(f *os.File, g Group, bytes int64) error {
	args := qgroupLimitArgs{qgroupid: uint64(g), flags: limitMaxRfer, maxRfer: uint64(bytes)}
	if _, err := ioctl(f, iocQgroupLimit, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("limit quota group %s to %d bytes: %w", g, bytes, err)
	}
	return nil
}

// Usage reads a group; found is false if there is none.
func Usage(f *os.File, g Group) (u GroupUsage, found bool, err error) {
	all, err := groups(f, g, g)
	if err != nil {
		return GroupUsage{}, false, err
	}
	u, found = all[g]
	return u, found, nil
}

// Groups reads all groups of a level.
func Groups(f *os.File, level uint16) (map[Group]GroupUsage, error) {
	return groups(f, GroupOf(level, 0), GroupOf(level, 1<<levelShift-1))
}

func groups(f *os.File, from, to Group) (map[Group]GroupUsage, error) {
	out := map[Group]GroupUsage{}
	err := search(f, quotaTree, 0, qgroupInfoKey, uint64(from), uint64(to), func(i item) {
		// struct btrfs_qgroup_info_item: generation, rfer, rfer_cmpr, excl, …
		out[Group(i.offset)] = GroupUsage{Referenced: int64(i.u64(8)), Exclusive: int64(i.u64(24))}
	})
	if err == nil {
		err = search(f, quotaTree, 0, qgroupLimitKey, uint64(from), uint64(to), func(i item) {
			// struct btrfs_qgroup_limit_item: flags, max_rfer, …
			if u, ok := out[Group(i.offset)]; ok && i.u64(0)&limitMaxRfer != 0 {
				u.Limit = int64(i.u64(8))
				out[Group(i.offset)] = u
			}
		})
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read quota groups: %w", err)
	}
	return out, nil
}
