//go:build root

package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// moment is when a process is killed: after a time, after so many lines of its
// log, or after so many changes of the pool's directories. The last two hit
// the steps themselves; where they do not come, the time does.
type moment struct {
	after    time.Duration
	lines    int64
	changes  int
	starting bool // counted from the start of the process, not from its first answer
}

// Bounds of a moment.
const (
	maxLoad    = 350 * time.Millisecond
	maxStart   = 60 * time.Millisecond
	maxLines   = 25
	maxChanges = 60
)

func pickMoment(r *rand.Rand) moment {
	m := moment{after: 5*time.Millisecond + time.Duration(r.Int64N(int64(maxLoad)))}
	switch r.IntN(6) {
	case 0:
		m.starting, m.after = true, time.Duration(r.Int64N(int64(maxStart)))
	case 1, 2:
		m.lines, m.after = 1+r.Int64N(maxLines), 2*maxLoad
	case 3, 4:
		m.changes, m.after = 1+r.IntN(maxChanges), 2*maxLoad
	}
	return m
}

func (m moment) String() string {
	switch {
	case m.changes > 0:
		return fmt.Sprintf("after %d changes on disk", m.changes)
	case m.lines > 0:
		return fmt.Sprintf("after %d lines of log", m.lines)
	case m.starting:
		return fmt.Sprintf("%v after its start", m.after)
	}
	return fmt.Sprintf("after %v of work", m.after)
}

// killAt kills the process at its moment; the result is closed then.
func (m moment) killAt(p *process, pool string) (<-chan struct{}, error) {
	changes, stop, err := watchChanges(pool)
	if err != nil {
		return nil, err
	}
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		defer stop()
		defer p.kill()
		from, seen := p.logged.Load(), 0
		for timer := time.After(m.after); ; {
			select {
			case <-timer:
				return
			case <-p.ended:
				return
			case <-p.line:
				if m.lines > 0 && p.logged.Load()-from >= m.lines {
					return
				}
			case n := <-changes:
				if seen += n; m.changes > 0 && seen >= m.changes {
					return
				}
			}
		}
	}()
	return killed, nil
}

// watchChanges tells of files that come and go where a pool works (inotify(7)).
func watchChanges(pool string) (<-chan int, func(), error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	for _, dir := range []string{".plinth/volumes", ".plinth/snapshots", ".plinth/groups", ".plinth/tmp", ".plinth/trash", "volumes", "snapshots"} {
		_, err := unix.InotifyAddWatch(fd, filepath.Join(pool, dir), unix.IN_CREATE|unix.IN_MOVE|unix.IN_DELETE|unix.IN_CLOSE_WRITE)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, errors.Join(err, f.Close())
		}
	}
	changes, ended := make(chan int), make(chan struct{})
	go func() {
		buffer := make([]byte, 64*(unix.SizeofInotifyEvent+64))
		for {
			n, err := f.Read(buffer)
			if err != nil {
				return // closed
			}
			select {
			case changes <- max(1, n/(unix.SizeofInotifyEvent+16)):
			case <-ended:
				return
			}
		}
	}()
	return changes, func() { close(ended); _ = f.Close() }, nil
}
