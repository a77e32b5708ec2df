//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
)

const (
	fioDisk   = 6 << 30 // bytes
	fioVolume = 4 << 30
	fioFile   = 1 << 30
	fioTime   = 1500 * time.Millisecond
	fioRamp   = 500 * time.Millisecond // at the start of each, which does not count
	fioTurns  = 9
)

// job is one way to use a file: direct I/O, so that the disk and not the page
// cache is measured, and what lies on the way to it.
type job struct {
	name, rw, bs string
	depth        int // requests at a time
}

var jobs = []job{
	{"write 1M", "write", "1M", 8},
	{"read 1M", "read", "1M", 8},
	{"random write 4k", "randwrite", "4k", 16},
	{"random read 4k", "randread", "4k", 16},
}

// TestFio compares a file on a volume with a file on a filesystem of the same
// kind on another disk of the same kind, which Plinth never saw.
func TestFio(t *testing.T) {
	for _, c := range []struct {
		name, fs, settings string
		least              float64
	}{
		{"btrfs", "btrfs", "backend: btrfs", 0.98},
		{"directory on XFS", "xfs", "backend: directory, quota: none", 0.98},
		{"image on XFS", "xfs", "backend: image", 0.90},
	} {
		t.Run(c.name, func(t *testing.T) {
			on := loopfs.Options{Type: c.fs, Size: fioDisk}
			m := newMachine(t, on, c.settings)
			with, without := filepath.Join(m.volume("v", fioVolume), "file"), filepath.Join(loopfs.New(t, on).Dir, "file")
			m.fill(with)
			m.fill(without)
			for _, j := range jobs {
				m.compare(c.name, j, with, without, c.least)
			}
		})
	}
}

// compare runs one job on both files by turns.
func (m *machine) compare(name string, j job, with, without string, least float64) {
	m.Helper()
	var a, b []float64
	for round := range number(m.T, roundsEnv, fioTurns) {
		if round%2 == 0 { // so that neither is always first
			a = append(a, m.fio(j, with))
			b = append(b, m.fio(j, without))
			continue
		}
		b = append(b, m.fio(j, without))
		a = append(a, m.fio(j, with))
	}
	m.Logf("%s, %s, MB/s with %.0f, without %.0f", name, j.name, a, b)
	rounds := ratios(a, b)
	ratio := quantile(rounds, 0.5)
	m.tell(figure{
		Name: fmt.Sprintf("fio %s ÷ without Plinth, %s", j.name, name), Value: ratio,
		Measured: fmt.Sprintf("%.2f (%.0f MB/s, without %.0f MB/s; %s)", ratio, quantile(a, 0.5), quantile(b, 0.5), spread(rounds)),
	}.atLeast(least, ""))
}

// fill writes a file, so that no job has to find room.
func (m *machine) fill(file string) {
	m.Helper()
	m.command("fio", "--name=fill", "--filename="+file, "--rw=write", "--bs=1M", "--iodepth=8", "--direct=1", "--ioengine=libaio", "--end_fsync=1", "--size="+strconv.Itoa(fioFile))
}

// fio runs one job once and returns its MB/s.
func (m *machine) fio(j job, file string) float64 {
	m.Helper()
	out := m.command("fio", "--name="+j.rw, "--filename="+file, "--rw="+j.rw, "--bs="+j.bs, "--iodepth="+strconv.Itoa(j.depth), "--direct=1", "--ioengine=libaio",
		"--size="+strconv.Itoa(fioFile), "--time_based", fmt.Sprintf("--runtime=%dms", fioTime.Milliseconds()), fmt.Sprintf("--ramp_time=%dms", fioRamp.Milliseconds()), "--output-format=json")
	var report struct {
		Jobs []struct {
			Read, Write struct {
				Bytes float64 `json:"bw_bytes"` // a second
			}
		}
	}
	err := json.Unmarshal(out, &report)
	if err == nil && len(report.Jobs) != 1 {
		err = errors.New("it reports of no job")
	}
	m.must(err, "read what fio says")
	return (report.Jobs[0].Read.Bytes + report.Jobs[0].Write.Bytes) / 1e6
}

// command runs a command, which ends with this process.
func (m *machine) command(argv ...string) []byte {
	m.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(m.ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		m.Fatalf("%q: %v\n%s%s", argv, err, &errs, &out)
	}
	return out.Bytes()
}
