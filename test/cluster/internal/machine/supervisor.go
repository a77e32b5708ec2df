package machine

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	retryAddress = 20 * time.Millisecond // between attempts to reach what a unit waits for
	retryUnit    = time.Second           // before a unit that ended is started again
)

// supervisor starts units, starts them again, and buries every orphan of the machine.
type supervisor struct {
	units []Unit
	logs  map[string]*os.File
	null  *os.File // standard input of every unit
	gate  chan struct{}

	mu      sync.Mutex
	ending  bool
	running map[int]chan struct{} // by process number; closed when it ended
	pids    map[string]int        // of units
}

func newSupervisor(units []Unit, logs map[string]*os.File) (*supervisor, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	return &supervisor{
		units: units, logs: logs, null: null, gate: make(chan struct{}),
		running: map[int]chan struct{}{}, pids: map[string]int{},
	}, nil
}

func (m *supervisor) startAll() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			m.reap()
		}
	}()
	for _, u := range m.units {
		go m.keep(u)
	}
}

// keep runs u until the machine ends.
func (m *supervisor) keep(u Unit) {
	if u.Gated {
		<-m.gate
	}
	for {
		for _, address := range u.After {
			await(address)
		}
		began := time.Now()
		ended, err := m.start(u)
		if err != nil {
			fmt.Fprintf(m.logs[u.Name], "process 1: %s cannot be started: %v\n", u.Name, err)
		} else if ended == nil {
			return // the machine is ending
		} else {
			<-ended
			fmt.Fprintf(m.logs[u.Name], "process 1: %s ended after %v\n", u.Name, time.Since(began).Round(time.Millisecond))
		}
		<-time.After(retryUnit)
	}
}

// await returns once address accepts connections.
func await(address string) {
	network, target, _ := strings.Cut(address, ":")
	for {
		c, err := net.DialTimeout(network, target, time.Second)
		if err == nil {
			c.Close() //nolint:errcheck // it was only a knock
			return
		}
		<-time.After(retryAddress)
	}
}

// start returns a channel that is closed when the unit's process has ended, or
// nil when the machine is ending.
func (m *supervisor) start(u Unit) (<-chan struct{}, error) {
	log := m.logs[u.Name].Fd()
	// The lock is held over the fork, so that reap knows every child it meets.
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending {
		return nil, nil
	}
	pid, err := syscall.ForkExec(u.Argv[0], u.Argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), u.Env...),
		Files: []uintptr{m.null.Fd(), log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	m.running[pid] = ended
	m.pids[u.Name] = pid
	return ended, nil
}

// reap buries all children that have ended, also those that their own parents
// left behind.
func (m *supervisor) reap() {
	for {
		m.mu.Lock()
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil || pid <= 0 {
			m.mu.Unlock()
			return
		}
		if ended, ok := m.running[pid]; ok {
			delete(m.running, pid)
			close(ended)
		}
		m.mu.Unlock()
	}
}
