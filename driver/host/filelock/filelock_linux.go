// Package filelock keeps processes apart by locks on an open file (fcntl(2),
// open file description locks). The kernel drops a lock when the file is
// closed or its process ends, however it ends. On a filesystem shared by
// several nodes, such as NFS, the locks hold between the nodes; on a local one
// they hold between the processes of one machine.
package filelock

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld: another holder has the lock.
var ErrHeld = errors.New("lock held by another")

// The bytes that stand for the whole of what a file guards, and for its being
// opened. Keys are all behind them.
const (
	Whole   = 0
	Opening = 1
)

// Key gives the byte that stands for a name. Two names may share one: then
// one of them waits or is refused without need, which is harmless.
func Key(name string) int64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // a hash never fails to write
	return int64(h.Sum64()>>2) + Opening + 1
}

// Try locks one byte of f for writing, or returns ErrHeld at once. f is open
// for reading and writing and stays open for as long as the lock is to hold.
func Try(f *os.File, at int64) error { return try(f, unix.F_WRLCK, at) }

// TryShared is Try for a lock that others may share and that keeps out those
// who lock for writing.
func TryShared(f *os.File, at int64) error { return try(f, unix.F_RDLCK, at) }

func try(f *os.File, kind int16, at int64) error {
	err := set(f, unix.F_OFD_SETLK, kind, at, 1)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrHeld
	}
	return err
}

// Wait locks one byte of f for writing and waits for it if need be. It is for
// short sections only: nothing interrupts it.
func Wait(f *os.File, at int64) error { return wait(f, unix.F_WRLCK, at) }

// WaitShared is Wait for a lock that others may share and that keeps out
// those who lock for writing.
func WaitShared(f *os.File, at int64) error { return wait(f, unix.F_RDLCK, at) }

func wait(f *os.File, kind int16, at int64) error {
	for {
		if err := set(f, unix.F_OFD_SETLKW, kind, at, 1); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Unlock lets go of one byte.
func Unlock(f *os.File, at int64) error {
	return set(f, unix.F_OFD_SETLK, unix.F_UNLCK, at, 1)
}

// Close lets go of all locks of f and closes it. To close it alone leaves them
// for as long as a command that is being started has the file too.
func Close(f *os.File) error {
	return errors.Join(set(f, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0), f.Close())
}

func set(f *os.File, cmd int, kind int16, at, length int64) error {
	err := unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: length})
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
