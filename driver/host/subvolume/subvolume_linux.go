// Package subvolume speaks to btrfs: subvolumes, snapshots, quota groups. It
// makes the requests of linux/btrfs.h itself and runs no command. Most need
// CAP_SYS_ADMIN.
package subvolume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ID is the number of a subvolume; the top of a filesystem has 5, all others
// are from 256 and none is ever given again.
type ID uint64

// IsBtrfs reports whether a file is on btrfs.
func IsBtrfs(f *os.File) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false, fmt.Errorf("statfs %s: %w", f.Name(), err)
	}
	return st.Type == unix.BTRFS_SUPER_MAGIC, nil
}

// IsSubvolume reports whether an open directory is the root of a subvolume.
func IsSubvolume(dir *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", dir.Name(), err)
	}
	if st.Ino != firstFree || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, nil
	}
	return IsBtrfs(dir)
}

// Of is the ID of the subvolume that an open file or directory lies in.
func Of(f *os.File) (ID, error) {
	args := inoLookupArgs{objectid: firstFree}
	if _, err := ioctl(f, iocInoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("find the subvolume of %s: %w", f.Name(), err)
	}
	return ID(args.treeid), nil
}

// Create makes an empty subvolume of that name in an open directory.
func Create(parent *os.File, name string) error {
	args := volArgs{}
	if err := setName(args.name[:], name); err != nil {
		return err
	}
	if _, err := ioctl(parent, iocSubvolCreate, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("create subvolume %s/%s: %w", parent.Name(), name, err)
	}
	return nil
}

// Snapshot makes a snapshot, at one instant, of the subvolume whose root
// source has open, under a name in parent. Subvolumes inside the source are
// empty directories in the snapshot.
func Snapshot(source, parent *os.File, name string, readOnly bool) error {
	args := volArgsV2{fd: int64(source.Fd())}
	if readOnly {
		args.flags = subvolReadOnly
	}
	if err := setName(args.name[:], name); err != nil {
		return err
	}
	if _, err := ioctl(parent, iocSnapCreateV2, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("snapshot %s as %s/%s: %w", source.Name(), parent.Name(), name, err)
	}
	return nil
}

// SetReadOnly makes the subvolume whose root is open read-only for everybody.
func SetReadOnly(root *os.File) error {
	var flags uint64
	_, err := ioctl(root, iocGetFlags, unsafe.Pointer(&flags))
	if err == nil && flags&subvolReadOnly == 0 {
		flags |= subvolReadOnly
		_, err = ioctl(root, iocSetFlags, unsafe.Pointer(&flags))
	}
	if err != nil {
		return fmt.Errorf("make subvolume %s read-only: %w", root.Name(), err)
	}
	return nil
}

// Delete takes the subvolume of that name out of an open directory, with all
// subvolumes inside it, and says which they were. Their bytes come back later:
// see WaitDeleted. fs.ErrNotExist if it is not there.
func Delete(parent *os.File, name string) ([]ID, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("delete subvolume %s/%s: %w", parent.Name(), name, err)
	}
	dir := os.NewFile(uintptr(fd), parent.Name()+"/"+name)
	defer dir.Close()
	if is, err := IsSubvolume(dir); err != nil || !is {
		return nil, errors.Join(fmt.Errorf("delete subvolume %s: it is none", dir.Name()), err)
	}
	id, err := Of(dir)
	if err != nil {
		return nil, err
	}
	unlock(dir)
	nested, err := deleteNested(dir, id)
	if err != nil {
		return nil, err
	}
	args := volArgs{}
	if err := setName(args.name[:], name); err != nil {
		return nil, err
	}
	if _, err := ioctl(parent, iocSnapDestroy, unsafe.Pointer(&args)); err != nil {
		return nil, fmt.Errorf("delete subvolume %s: %w", dir.Name(), err)
	}
	return append(nested, id), nil
}

// unlock takes off what an owner may have set so that nothing in the
// subvolume, or itself, can be deleted. It is an attempt.
func unlock(dir *os.File) {
	var flags uint64
	if _, err := ioctl(dir, iocGetFlags, unsafe.Pointer(&flags)); err == nil && flags&subvolReadOnly != 0 {
		flags &^= subvolReadOnly
		_, _ = ioctl(dir, iocSetFlags, unsafe.Pointer(&flags))
	}
	const immutable = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	if have, err := unix.IoctlGetInt(int(dir.Fd()), unix.FS_IOC_GETFLAGS); err == nil && have&immutable != 0 {
		_ = unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, have&^immutable)
	}
}

// deleteNested deletes the subvolumes that anybody made inside one, the
// innermost first. They are found in the tree of roots, so it does not matter
// what paths lead to them.
func deleteNested(f *os.File, id ID) ([]ID, error) {
	order, err := descendants(f, id)
	if err != nil {
		return nil, err
	}
	for i := len(order) - 1; i >= 0; i-- {
		args := volArgsV2{flags: subvolByID}
		binary.NativeEndian.PutUint64(args.name[:], uint64(order[i]))
		if _, err := ioctl(f, iocSnapDestroyV2, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("delete subvolume %d nested in %d: %w", order[i], id, err)
		}
	}
	return order, nil
}

// descendants lists the subvolumes inside one, parents before children.
func descendants(f *os.File, id ID) ([]ID, error) {
	var order []ID
	for next := []ID{id}; len(next) > 0; {
		parent := next[0]
		next = next[1:]
		err := search(f, rootTree, uint64(parent), rootRefKey, 0, ^uint64(0), func(i item) {
			order = append(order, ID(i.offset))
			next = append(next, ID(i.offset))
		})
		if err != nil {
			return nil, fmt.Errorf("list the subvolumes in %d: %w", parent, err)
		}
	}
	return order, nil
}

// Exists reports whether a subvolume is there or deleted but not yet freed.
func Exists(f *os.File, id ID) (bool, error) {
	found := false
	err := search(f, rootTree, uint64(id), rootItemKey, 0, ^uint64(0), func(item) { found = true })
	if err != nil {
		return false, fmt.Errorf("look for subvolume %d: %w", id, err)
	}
	return found, nil
}

// askAgain is how long Commit waits before it asks for the transaction again.
const askAgain = 20 * time.Millisecond

// Commit waits for a transaction, so that what was done is durable and what
// it freed is free. f is anything on the filesystem.
//
// The kernel's thread that commits does not see a request that comes just as
// it goes to sleep, and then sleeps for the 30 seconds of its interval (linux:
// fs/btrfs/disk-io.c, transaction_kthread). So it is asked until it is done.
func Commit(f *os.File) error {
	var transid, again uint64
	_, err := ioctl(f, iocStartSync, unsafe.Pointer(&transid))
	if err == nil {
		done := make(chan error, 1)
		go func() {
			_, err := ioctl(f, iocWaitSync, unsafe.Pointer(&transid))
			done <- err
		}()
		for waiting := true; waiting; {
			select {
			case err = <-done:
				waiting = false
			case <-time.After(askAgain):
				_, _ = ioctl(f, iocStartSync, unsafe.Pointer(&again)) // the wait tells how it goes
			}
		}
	}
	if err != nil {
		return fmt.Errorf("commit the btrfs of %s: %w", f.Name(), err)
	}
	return nil
}

// How often WaitDeleted looks.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// WaitDeleted waits until deleted subvolumes are gone and their bytes free.
func WaitDeleted(ctx context.Context, f *os.File, ids ...ID) error {
	for _, id := range ids {
		if err := Commit(f); err != nil {
			return err
		}
		for wait := firstLook; ; wait = min(2*wait, lastLook) {
			// Else the cleaner, which frees them, sleeps for up to 30 seconds.
			if _, err := ioctl(f, iocSync, nil); err != nil {
				return fmt.Errorf("sync the btrfs of %s: %w", f.Name(), err)
			}
			there, err := Exists(f, id)
			if err != nil {
				return err
			}
			if !there {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the bytes of subvolume %d: %w", id, ctx.Err())
			case <-time.After(wait):
			}
		}
	}
	return Commit(f) // what the last of them freed is pinned until now
}

func setName(field []byte, name string) error {
	if name == "" || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("subvolume name %q: %w", name, unix.EINVAL)
	}
	copy(field, name)
	return nil
}
