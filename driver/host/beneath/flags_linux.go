package beneath

import "golang.org/x/sys/unix"

// Inode flags that stop a removal (ioctl_iflags(2)), and the extended one
// that stops a rename between projects (ioctl_xfs_fsgetxattr(2)).
const (
	immutableFlag = 0x10       // FS_IMMUTABLE_FL
	appendFlag    = 0x20       // FS_APPEND_FL
	projInherit   = 0x20000000 // FS_PROJINHERIT_FL: with it, a rename into the directory from another project is EXDEV
)

// clearFlags takes the flags off an inode that make it unchangeable. It is an
// attempt: a filesystem without flags has none in the way, and the operation
// that follows tells the rest.
func clearFlags(fd, flags int) {
	have, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || have&flags == 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, have&^flags)
}

// clearFlagsOf is clearFlags of a name, for what stops a removal; false if it
// could not be opened.
func clearFlagsOf(parent int, name string) bool {
	fd, err := openat2(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	clearFlags(fd, immutableFlag|appendFlag)
	return unix.Close(fd) == nil
}
