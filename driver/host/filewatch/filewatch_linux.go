// Package filewatch tells of changes of a file by inotify(7).
package filewatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Watch calls changed once when it has begun, for what changed before, and
// whenever the file may have another content, until the context ends. It looks
// at the directory, so it sees a file that is replaced, and the symlink that
// kubelet swaps to replace all files of a ConfigMap at once. A file that a
// symlink names in another directory is not looked at. changed may be called
// for another file of the directory.
func Watch(ctx context.Context, name string, changed func()) error {
	dir := filepath.Dir(name)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	events := os.NewFile(uintptr(fd), "inotify of "+dir)
	stop := context.AfterFunc(ctx, func() { _ = events.Close() }) // which ends the reading
	defer func() {
		if stop() {
			_ = events.Close()
		}
	}()
	// Written and closed, or renamed into place: not while it is being written.
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch directory %s: %w", dir, err)
	}
	changed()
	buffer := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		_, err := events.Read(buffer)
		switch {
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("watch directory %s: %w", dir, err)
		}
		changed()
	}
}
