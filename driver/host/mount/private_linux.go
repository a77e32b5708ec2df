package mount

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is mounted here ends when its last descriptor is closed, and whoever
// comes next wants the device. A command that is being started has a copy of
// every descriptor for a moment, so none is started meanwhile (syscall.ForkLock).

// Once mounts the filesystem on a device nowhere and unmounts it at once, so
// that its log is replayed and clean. Nobody else can see the mount, and it
// ends with the process. Options are as the filesystem spells them, flags only.
func Once(device, fsType string, options ...string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := create(device, fsType, options)
	if err != nil {
		return fmt.Errorf("replay the log of the %s on %s: %w", fsType, device, err)
	}
	return unix.Close(fd)
}

// InRoot runs do with the open root directory of the filesystem on a device,
// which is mounted nowhere meanwhile: nobody else can see it, and it ends with
// the process. What do changes is durable afterwards; it must start no command.
func InRoot(device, fsType string, do func(root *os.File) error) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := inRoot(device, fsType, do); err != nil {
		return fmt.Errorf("root directory of the %s on %s: %w", fsType, device, err)
	}
	return nil
}

func inRoot(device, fsType string, do func(root *os.File) error) error {
	fs, err := create(device, fsType, nil)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	at, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	root := os.NewFile(uintptr(fd), device)
	err = do(root)
	if err == nil {
		err = unix.Syncfs(fd)
	}
	return errors.Join(err, root.Close())
}

// create makes the kernel read the filesystem on a device, and gives what
// stands for it (fsopen(2)).
func create(device, fsType string, options []string) (int, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	err = unix.FsconfigSetString(fd, "source", device)
	for _, o := range options {
		if err == nil {
			err = unix.FsconfigSetFlag(fd, o)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fd)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
