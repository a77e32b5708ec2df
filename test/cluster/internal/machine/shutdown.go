package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	unitGrace = 15 * time.Second // for a unit to end by itself
	podGrace  = 5 * time.Second  // for everything in containers to end by itself
)

// shutDown ends the machine in order, as the service manager of a real one does:
// the units that watch over containers, then the containers, then what runs
// those, then whatever is left.
func (m *supervisor) shutDown() {
	m.mu.Lock()
	m.ending = true
	m.mu.Unlock()
	// In turn: a unit may need the one before it to be able to end.
	for _, u := range slices.Backward(m.units) {
		if !u.Last {
			m.end(u)
		}
	}
	m.endContainers()
	for _, u := range slices.Backward(m.units) {
		if u.Last {
			m.end(u)
		}
	}
	unix.Sync()
}

// end asks u to end, and insists when it does not.
func (m *supervisor) end(u Unit) {
	m.mu.Lock()
	pid := m.pids[u.Name]
	ended := m.running[pid]
	m.mu.Unlock()
	if ended == nil {
		return
	}
	grace := unitGrace
	if u.Grace > 0 {
		grace = u.Grace
	}
	// ESRCH cannot be: only reap frees the number, and then it closes ended.
	_ = unix.Kill(pid, unix.SIGTERM)
	select {
	case <-ended:
		return
	case <-time.After(grace):
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	<-ended
}

// endContainers asks all processes but the Last units and the runtime's shims to
// end, and returns when they did, or only those are left that do not listen.
func (m *supervisor) endContainers() {
	deadline := time.Now().Add(podGrace)
	for _, pid := range m.others() {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
	for slices.ContainsFunc(m.others(), catchesTERM) && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond)
	}
}

// others lists the processes of containers.
func (m *supervisor) others() []int {
	keep := map[int]bool{os.Getpid(): true}
	m.mu.Lock()
	for pid := range m.running {
		keep[pid] = true
	}
	m.mu.Unlock()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || keep[pid] {
			continue
		}
		argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(argv) == 0 || bytes.Contains(argv, []byte("containerd-shim-")) {
			continue // gone, a zombie, or a shim: shims end with their containers
		}
		found = append(found, pid)
	}
	return found
}

// catchesTERM says whether SIGTERM can end the process pid in its own way. The
// first process of a container that installed no handler never gets the signal
// (pid_namespaces(7)), so there is nothing to wait for.
func catchesTERM(pid int) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && caught&(1<<(uint(syscall.SIGTERM)-1)) != 0
		}
	}
	return false
}
