// Package network builds the network of a cluster: a namespace for each machine,
// joined by a bridge in the namespace of the control plane. Nothing of it is
// connected to the network of the host.
package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// folder is where ip-netns(8) keeps named namespaces.
const folder = "/run/netns"

// Path is the file that stands for the namespace called name.
func Path(name string) string { return filepath.Join(folder, name) }

// Exists says whether the namespace called name is there and usable.
func Exists(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(Path(name), &st) == nil && st.Type == unix.NSFS_MAGIC
}

// MakeNamespace creates the namespace called name, as `ip netns add` does.
func MakeNamespace(name string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("name the network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the runtime ends the thread, and with it the only
		// place that was in the new namespace by accident.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make network namespace %s: %w", name, err)
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(self, Path(name), "", unix.MS_BIND, ""); err != nil {
			err = fmt.Errorf("keep network namespace %s: %w", name, err)
			done <- err
			return
		}
		done <- nil
	}()
	return <-done
}

// RemoveNamespace deletes the namespace called name. Absence is nil.
func RemoveNamespace(name string) error {
	for {
		err := unix.Unmount(Path(name), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not mounted, or not there
		}
		if err != nil {
			return fmt.Errorf("remove network namespace %s: %w", name, err)
		}
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Enter moves the calling goroutine's thread into the namespace called name for
// good. The caller has locked the thread and does not unlock it.
func Enter(name string) error {
	f, err := os.Open(Path(name))
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}
