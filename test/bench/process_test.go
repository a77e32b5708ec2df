//go:build bench

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tick is the unit of CPU times in /proc/PID/stat (sysconf(3), _SC_CLK_TCK).
const tick = 10 * time.Millisecond

// mebibyte is the unit of the promises about memory.
const mebibyte = 1 << 20

// process is a process of the cluster as this machine sees it.
type process struct{ pid string }

// find is the process of a program in a pod, by the pod's cgroup.
func find(pod *corev1.Pod, program string) (process, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return process{}, err
	}
	for _, file := range all {
		dir := filepath.Dir(file)
		groups, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(groups, []byte("pod"+string(pod.UID))) {
			continue // ended meanwhile, or another's
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		name, _, _ := strings.Cut(string(line), "\x00")
		if err == nil && filepath.Base(name) == program {
			return process{filepath.Base(dir)}, nil
		}
	}
	return process{}, fmt.Errorf("pod %s has no process %s", pod.Name, program)
}

// memory is what a process has resident, in bytes, and how much of that is its
// own and not of a file (proc_pid_status(5): VmRSS, RssAnon).
type memory struct{ resident, anonymous int64 }

func (m memory) String() string {
	return fmt.Sprintf("%.1f MiB, of it %.1f MiB anonymous", float64(m.resident)/mebibyte, float64(m.anonymous)/mebibyte)
}

func (p process) memory() (memory, error) {
	data, err := os.ReadFile("/proc/" + p.pid + "/status")
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			m.resident = n << 10
		case "RssAnon:":
			m.anonymous = n << 10
		}
	}
	if m.resident == 0 {
		return m, errors.New("it has no VmRSS")
	}
	return m, nil
}

// cpu is the time that a process has had a processor, in user and kernel mode
// (proc_pid_stat(5): utime, stime).
func (p process) cpu() (time.Duration, error) {
	data, err := os.ReadFile("/proc/" + p.pid + "/stat")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(data), ") ") // the name may have blanks
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s is no stat", data)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}
