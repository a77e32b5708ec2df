package subvolume

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of btrfs (linux/btrfs.h) that this package makes.
const (
	iocSync           = 0x9408
	iocSubvolCreate   = 0x5000940e
	iocSnapDestroy    = 0x5000940f
	iocTreeSearch     = 0xd0009411
	iocInoLookup      = 0xd0009412
	iocWaitSync       = 0x40089416
	iocSnapCreateV2   = 0x50009417
	iocStartSync      = 0x80089418
	iocGetFlags       = 0x80089419
	iocSetFlags       = 0x4008941a
	iocQuotaCtl       = 0xc0109428
	iocQgroupAssign   = 0x40189429
	iocQgroupCreate   = 0x4010942a
	iocQgroupLimit    = 0x8030942b
	iocSnapDestroyV2  = 0x5000943f
	subvolReadOnly    = 1 << 1 // BTRFS_SUBVOL_RDONLY
	subvolByID        = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID
	quotaEnable       = 1      // BTRFS_QUOTA_CTL_ENABLE
	quotaEnableSimple = 4      // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
	limitMaxRfer      = 1 << 0 // BTRFS_QGROUP_LIMIT_MAX_RFER
)

// Trees, object IDs and item types (linux/btrfs_tree.h).
const (
	rootTree        = 1
	quotaTree       = 8
	firstFree       = 256 // also the inode number of every subvolume's root
	rootItemKey     = 132
	rootRefKey      = 156
	qgroupStatusKey = 240
	qgroupInfoKey   = 242
	qgroupLimitKey  = 244
	statusOn        = 1 << 0 // BTRFS_QGROUP_STATUS_FLAG_ON
	statusSimple    = 1 << 3 // BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2; name holds subvolid with subvolByID.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	_       [4]uint64
	name    [4040]byte
}

type quotaCtlArgs struct{ cmd, status uint64 }

type qgroupCreateArgs struct{ create, qgroupid uint64 }

type qgroupAssignArgs struct{ assign, src, dst uint64 }

type qgroupLimitArgs struct {
	qgroupid                                  uint64
	flags, maxRfer, maxExcl, rsvRfer, rsvExcl uint64
}

type inoLookupArgs struct {
	treeid, objectid uint64
	name             [4080]byte
}

// searchKey is struct btrfs_ioctl_search_key.
type searchKey struct {
	treeID, minObjectID, maxObjectID, minOffset, maxOffset, minTransID, maxTransID uint64
	minType, maxType, nrItems, _                                                   uint32
	_                                                                              [4]uint64
}

const searchBuf = 4096 - 104

type searchArgs struct {
	key searchKey
	buf [searchBuf]byte
}

// item is one result of a search.
type item struct {
	objectID, offset uint64
	kind             uint32
	data             []byte
}

// u64 reads the little-endian number at a byte of the item; 0 beyond its end.
func (i item) u64(at int) uint64 {
	if at+8 > len(i.data) {
		return 0
	}
	return binary.LittleEndian.Uint64(i.data[at:])
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

// search calls each with the items of one object and type in a tree, by
// rising offset from the least to the most given.
func search(f *os.File, tree, objectID uint64, kind uint32, from, to uint64, each func(item)) error {
	for {
		args := searchArgs{key: searchKey{
			treeID: tree, minObjectID: objectID, maxObjectID: objectID, minType: kind, maxType: kind,
			minOffset: from, maxOffset: to, maxTransID: ^uint64(0), nrItems: 4096,
		}}
		if _, err := ioctl(f, iocTreeSearch, unsafe.Pointer(&args)); err != nil {
			return err
		}
		if args.key.nrItems == 0 {
			return nil
		}
		buf, last := args.buf[:], uint64(0)
		for range args.key.nrItems {
			const header = 32 // struct btrfs_ioctl_search_header
			h := item{objectID: binary.NativeEndian.Uint64(buf[8:]), offset: binary.NativeEndian.Uint64(buf[16:]),
				kind: binary.NativeEndian.Uint32(buf[24:])}
			length := binary.NativeEndian.Uint32(buf[28:])
			h.data = buf[header : header+length]
			buf = buf[header+length:]
			last = h.offset
			if h.objectID == objectID && h.kind == kind && h.offset >= from && h.offset <= to {
				each(h)
			}
		}
		if last >= to {
			return nil
		}
		from = last + 1
	}
}
