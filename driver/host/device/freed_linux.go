package device

import (
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eofBlocks is struct xfs_fs_eofblocks of xfsprogs' xfs_fs.h.
type eofBlocks struct {
	version, flags    uint32
	uid, gid, project uint32
	_                 uint32
	minFileSize       uint64
	_                 [12]uint64
}

const (
	eofVersion     = 1
	eofMinFileSize = 1 << 4
	// freeEOFBlocks is XFS_IOC_FREE_EOFBLOCKS, _IOR('X', 58, struct xfs_fs_eofblocks).
	freeEOFBlocks = 0x8080583a
)

// AwaitFreed returns when the blocks of what was removed from the filesystem
// that f is on are free, which is a while after unlink(2): on btrfs with its
// next transaction, which is made to happen. XFS does it in the background, and
// no sync waits for it (since Linux 5.14); the call that gives speculative
// preallocations back does, after a walk that here finds nothing, for no file
// is that large. The others have freed them.
func AwaitFreed(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the kind of the filesystem of %s: %w", f.Name(), err)
	}
	switch st.Type {
	case unix.XFS_SUPER_MAGIC:
		return flushInactive(f)
	case unix.BTRFS_SUPER_MAGIC:
		if err := unix.Syncfs(int(f.Fd())); err != nil {
			return fmt.Errorf("sync the filesystem of %s: %w", f.Name(), err)
		}
	}
	return nil
}

func flushInactive(f *os.File) error {
	which := eofBlocks{version: eofVersion, flags: eofMinFileSize, minFileSize: math.MaxInt64}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), freeEOFBlocks, uintptr(unsafe.Pointer(&which)))
	if errno != 0 {
		return fmt.Errorf("wait for what was removed from the filesystem of %s: %w", f.Name(), errno)
	}
	return nil
}
