package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// Open opens the backend over a pool's directory, makes the places in it, and
// frees the disks that a cut left half made or half wiped.
func Open(ctx context.Context, o Options) (*Device, error) {
	if o.Runner == nil {
		o.Runner = run.Exec{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := beneath.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open device pool: %w", err)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open device pool: %w", err), dir.Close())
	}
	m := &machine{dir: dir, root: root, runner: o.Runner, patterns: o.Devices}
	b, err := openOn(ctx, m, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open device pool %s: %w", o.Dir, err), m.Close())
	}
	return b, nil
}

func openOn(ctx context.Context, m *machine, o Options) (*Device, error) {
	if err := errors.Join(layout.Prepare(m.dir.Mkdir), m.sweep()); err != nil {
		return nil, err
	}
	if o.step != nil {
		return open(ctx, &stepped{host: m, step: o.step}, o.Log)
	}
	return open(ctx, m, o.Log)
}

// machine is the host for real.
type machine struct {
	dir      *beneath.Dir
	root     *os.Root // of the same directory: what atomicfile writes by
	runner   run.Runner
	patterns []string
}

// Close implements host.
func (m *machine) Close() error { return errors.Join(m.dir.Close(), m.root.Close()) }

// sweep removes claims that a cut kept from being published.
func (m *machine) sweep() error {
	names, err := m.Names(layout.Tmp)
	if err != nil {
		return err
	}
	for _, name := range names {
		if atomicfile.IsTemp(name) && strings.Contains(name, string(layout.Disk)) {
			err = errors.Join(err, m.dir.Remove(layout.Tmp+"/"+name))
		}
	}
	return err
}

// Names implements host.
func (m *machine) Names(dir string) ([]string, error) {
	entries, err := m.dir.Entries(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// maxClaim bounds what is read of a claim, in bytes.
const maxClaim = 64 << 10

// Read implements host.
func (m *machine) Read(name string) (claim, error) {
	f, err := m.dir.OpenFile(name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ELOOP) {
		return claim{}, fmt.Errorf("%w: %s is a link", volume.ErrInvalid, name)
	}
	if err != nil {
		return claim{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return claim{}, err
	}
	if !fi.Mode().IsRegular() {
		return claim{}, fmt.Errorf("%w: %s is no file", volume.ErrInvalid, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxClaim))
	if err != nil {
		return claim{}, fmt.Errorf("read %s: %w", name, err)
	}
	return decode(name, data)
}

// decode reads a claim. What it does not know makes it no claim: a newer
// plinth may have meant more by it.
func decode(name string, data []byte) (claim, error) {
	var c claim
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return claim{}, fmt.Errorf("%w: %s is no claim of a disk: %v", volume.ErrInvalid, name, err)
	}
	switch {
	case c.Version != claimVersion:
		return claim{}, fmt.Errorf("%w: %s has version %d, and this plinth knows version %d", volume.ErrInvalid, name, c.Version, claimVersion)
	case c.Disk == "" || c.Mark == "" || c.Size <= 0 || c.Scrubbed < 0 || c.Holds == "":
		return claim{}, fmt.Errorf("%w: %s is no claim of a disk: something is missing in it", volume.ErrInvalid, name)
	}
	return c, nil
}

// Write implements host.
func (m *machine) Write(name string, c claim) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(m.root, layout.Tmp, name, append(data, '\n'), 0o600)
}

// Rename implements host.
func (m *machine) Rename(from, to string) error { return m.dir.Rename(from, to) }

// Drop implements host.
func (m *machine) Drop(name string) error { return atomicfile.Remove(m.root, name) }

// Boot implements host (proc_sys_kernel(5)).
func (m *machine) Boot() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// Disks implements host.
func (m *machine) Disks() ([]device.Disk, error) { return device.Disks() }

// Space implements host.
func (m *machine) Space(path string) (volume.Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return volume.Usage{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	bytes := func(blocks uint64) int64 { return int64(blocks) * st.Frsize }
	return volume.Usage{
		TotalBytes: bytes(st.Blocks), UsedBytes: bytes(st.Blocks - st.Bfree), AvailableBytes: bytes(st.Bavail),
		TotalInodes: int64(st.Files), UsedInodes: int64(st.Files - st.Ffree), AvailableInodes: int64(st.Ffree),
	}, nil
}
