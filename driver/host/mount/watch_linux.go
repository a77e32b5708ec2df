package mount

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch calls changed once when it has begun, for what changed before, and
// after every change of this namespace's mounts, until the context ends. It
// sleeps in the kernel in between: mountinfo can be polled for changes
// (proc_pid_mountinfo(5), POLLPRI). Several changes at once may be told as one.
func Watch(ctx context.Context, changed func()) error {
	// Not os.Open: the runtime would poll the file too, and the kernel tells a
	// change to whoever polls an open file first, once.
	table, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer unix.Close(table)
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer reader.Close()
	changed()
	// Closing the writing end is what ends the poll.
	stop := context.AfterFunc(ctx, func() { _ = writer.Close() })
	defer func() {
		if stop() {
			_ = writer.Close()
		}
	}()
	fds := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}, {Fd: int32(reader.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("watch mounts: %w", err)
		}
		if fds[0].Revents != 0 {
			changed()
		}
	}
}
