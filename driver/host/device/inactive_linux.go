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

// flushInactive returns when the blocks of what was removed from the filesystem
// that f is on are free. XFS frees those of a removed file a while after
// unlink(2), which no sync waits for (since Linux 5.14). The call that gives
// speculative preallocations back does, after a walk that here finds nothing:
// no file is that large. Other filesystems have freed them.
func flushInactive(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the kind of the filesystem of %s: %w", f.Name(), err)
	}
	if st.Type != unix.XFS_SUPER_MAGIC {
		return nil
	}
	which := eofBlocks{version: eofVersion, flags: eofMinFileSize, minFileSize: math.MaxInt64}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), freeEOFBlocks, uintptr(unsafe.Pointer(&which)))
	if errno != 0 {
		return fmt.Errorf("wait for what was removed from the filesystem of %s: %w", f.Name(), errno)
	}
	return nil
}
