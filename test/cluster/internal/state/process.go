package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process identifies a process beyond the reuse of its number: by its start
// time, in clock ticks since boot (proc_pid_stat(5), field 22).
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Find returns the identity of the running process pid.
func Find(pid int) (Process, error) {
	_, start, err := stat(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Start: start}, nil
}

// Alive says whether the very process p still runs. A zombie does not.
func (p *Process) Alive() bool {
	if p == nil {
		return false
	}
	status, start, err := stat(p.PID)
	return err == nil && start == p.Start && status != "Z" && status != "X"
}

// Signal sends sig to p, and to nothing else if p is gone. Absence is nil.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.PID, err)
	}
	return nil
}

func stat(pid int) (status string, start uint64, err error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0, err
	}
	// The name in parentheses may itself hold spaces and parentheses.
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 20 {
		return "", 0, fmt.Errorf("process %d: unexpected stat %q", pid, raw)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}

// BootID names this boot of the machine.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw)), err
}

// Lock is held by the one process that works on a cluster.
type Lock struct{ file *os.File }

// Acquire takes the lock of the cluster in dir. It calls waiting if another
// process has it, and waits until ctx ends. The lock ends with the process that
// holds it.
func Acquire(ctx context.Context, dir string, waiting func()) (*Lock, error) {
	path := filepath.Clean(dir) + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for told := false; ; {
		lock, err := try(path)
		if lock != nil || err != nil {
			return lock, err
		}
		if !told {
			waiting()
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// try returns nil when another process has the lock.
func try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cluster: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// The one before us may have removed the file between our two calls.
	if err == nil && same(f, path) {
		return &Lock{f}, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	return nil, errors.Join(err, f.Close())
}

func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Release gives the lock up.
func (l *Lock) Release() error { return l.file.Close() }

// Remove gives the lock up and leaves no file behind.
func (l *Lock) Remove() error {
	err := os.Remove(l.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Close())
}
