//go:build root

package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What test/vm/power has made of the virtual machine.
const (
	kernelEnv = "PLINTH_VM_KERNEL"
	initrdEnv = "PLINTH_VM_INITRAMFS"
)

// Bounds of a machine's life.
const (
	bootLimit    = 6 * time.Minute
	maxEntries   = 60
	maxPieces    = 200 // that are not flushed
	maxPowerLoad = 8 * time.Second
	maxCrashes   = 3       // of the emulator itself, in one machine's lives
	powerDisk    = 2 << 30 // bytes, sparse
)

// defaultPowerCuts is how often the power goes, in all.
const defaultPowerCuts = 3

// TestPowerLoss takes the power of a virtual machine away while it works:
// qemu is killed, and of what the guest wrote to its disk since it last
// flushed it every 4 KiB are kept or forgotten at random. What the guest was
// told by plinth it tells this test before it goes on.
func TestPowerLoss(t *testing.T) {
	if os.Getenv(kernelEnv) == "" {
		t.Skip("run by test/vm/power, which makes the virtual machine")
	}
	cuts, seed := fromEnvironment(t, defaultPowerCuts)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM, syscall.SIGINT)
	var tried, forgotten, lost atomic.Int64
	t.Cleanup(func() {
		stop()
		fmt.Printf("power loss: %d cuts tried, %d unflushed writes forgotten, %d losses found (%s=%d)\n", tried.Load(), forgotten.Load(), lost.Load(), seedEnv, seed)
	})
	project := []string{"-O", "quota,project", "-E", "quotatype=prjquota"}
	pools := []struct {
		name  string
		mkfs  []string
		guest guest
	}{
		{"btrfs", nil, guest{FSType: "btrfs", Settings: "backend: btrfs"}},
		{"directory-xfs", nil, guest{FSType: "xfs", Options: []string{"prjquota"}, Settings: "backend: directory"}},
		{"image-ext4", nil, guest{FSType: "ext4", Settings: "backend: image", Images: true}},
		{"directory-ext4", project, guest{FSType: "ext4", Options: []string{"prjquota"}, Settings: "backend: directory"}},
		{"image-xfs", nil, guest{FSType: "xfs", Settings: "backend: image", Images: true}},
	}
	for i, c := range pools {
		mine := (cuts + len(pools) - 1 - i) / len(pools)
		if mine == 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.guest.Seed = seed
			m := &machine{t: t, dir: t.TempDir(), guest: c.guest, rand: rand.New(rand.NewPCG(seed, uint64(i)))}
			began := time.Now()
			err := m.run(ctx, c.mkfs, mine)
			tried.Add(int64(m.tried))
			forgotten.Add(int64(m.forgotten))
			if err != nil {
				if errors.Is(err, errLost) {
					lost.Add(1)
				}
				t.Fatalf("after %d cuts (%s=%d): %v", m.tried, seedEnv, seed, err)
			}
			var acknowledged tally
			for _, e := range m.journal {
				acknowledged.count(e)
			}
			t.Logf("%d cuts, %v, %d unflushed writes forgotten, %.0f s", m.tried, &acknowledged, m.forgotten, time.Since(began).Seconds())
		})
	}
}

// machine is one virtual machine over its lives.
type machine struct {
	t                *testing.T
	dir              string
	guest            guest
	rand             *rand.Rand
	disk             *disk
	journal          []entry
	tried, forgotten int
	crashes          int // of qemu
}

func (m *machine) run(ctx context.Context, mkfs []string, cuts int) error {
	file, err := os.Create(filepath.Join(m.dir, "disk"))
	if err != nil {
		return err
	}
	defer file.Close()
	m.disk = &disk{file: file}
	if err := file.Truncate(powerDisk); err != nil {
		return err
	}
	argv := append(append([]string{"-q"}, mkfs...), file.Name())
	if out, err := exec.CommandContext(ctx, "mkfs."+m.guest.FSType, argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs: %w: %s", err, out)
	}
	for range cuts {
		if err := m.boot(ctx); err != nil {
			return err
		}
	}
	for m.guest.Last = true; !m.over(); {
		if err := m.boot(ctx); err != nil {
			return err
		}
	}
	return nil
}

// boot is one life: until the power goes or, the last, until the machine is done.
func (m *machine) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("the machine takes too long"))
	defer cancel()
	if err := m.writeScript(); err != nil {
		return err
	}
	disks, err := m.listen("disk.sock")
	if err != nil {
		return err
	}
	defer disks.Close()
	journals, err := m.listen("journal.sock")
	if err != nil {
		return err
	}
	defer journals.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := disks.Accept()
		if err == nil {
			err = serveNBD(conn, m.disk, powerDisk)
		}
		served <- err
	}()
	// The context kills qemu with SIGKILL: that is the cut.
	ctx, power := context.WithCancelCause(ctx)
	defer power(nil)
	qemu := m.qemu(ctx)
	var out bytes.Buffer
	qemu.Stdout, qemu.Stderr = &out, &out
	if err := qemu.Start(); err != nil {
		return err
	}
	listened := make(chan error, 1)
	go func() { listened <- m.listenToGuest(journals, power) }()
	ended := qemu.Wait()
	power(nil)
	_ = disks.Close() // if nobody came
	_ = journals.Close()
	if err := <-listened; err != nil {
		return err
	}
	if err := <-served; err != nil {
		return fmt.Errorf("serve the disk: %w", err)
	}
	cause := context.Cause(ctx)
	if crashed(qemu) && m.crashes < maxCrashes { // as good as a cut
		m.crashes++
		m.t.Logf("qemu ended by itself: %v", ended)
		cause = errCut
	}
	if !errors.Is(cause, errCut) && !m.over() {
		console, _ := os.ReadFile(filepath.Join(m.dir, "output"))
		return fmt.Errorf("the machine ended by itself: %v, %w: %s\n%s", ended, cause, &out, console[max(0, len(console)-4000):])
	}
	if m.over() {
		return nil
	}
	m.tried++
	n, err := m.disk.cut(m.rand, []float64{0, 0.5, 0.9}[m.rand.IntN(3)])
	m.forgotten += n
	m.journal = append(m.journal, entry{done, op{Kind: reboot}})
	return err
}

// crashed reports whether a program ended by a fault of its own.
func crashed(c *exec.Cmd) bool {
	status, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGSEGV || status.Signal() == syscall.SIGABRT)
}

func (m *machine) over() bool {
	return len(m.journal) > 0 && m.journal[len(m.journal)-1].Phase == over
}

// listen makes a socket; a connection is taken by whoever asks.
func (m *machine) listen(name string) (net.Listener, error) {
	path := filepath.Join(m.dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

// writeScript writes what the guest is to do, and what it did, to its second disk.
func (m *machine) writeScript() error {
	var script bytes.Buffer
	enc := json.NewEncoder(&script)
	if err := enc.Encode(m.guest); err != nil {
		return err
	}
	for _, e := range m.journal {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	script.Write(make([]byte, 4096-script.Len()%4096))
	return os.WriteFile(filepath.Join(m.dir, "script"), script.Bytes(), 0o600)
}

// listenToGuest keeps the journal, and cuts the power some time after the
// guest has said that it works.
func (m *machine) listenToGuest(l net.Listener, power context.CancelCauseFunc) error {
	conn, err := l.Accept()
	if err != nil {
		return nil // it ended before; its console says why
	}
	defer conn.Close()
	left := -1
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			power(err)
			return fmt.Errorf("the journal says %q: %w", lines.Text(), err)
		}
		switch e.Phase {
		case fault:
			power(errors.New("it has found a fault"))
			return fmt.Errorf("%w: %s", errLost, e.Op.ID)
		case working:
			cut := func() { power(errCut) }
			after := 2 * maxPowerLoad
			switch left = -1; m.rand.IntN(4) {
			case 0:
				after = time.Duration(m.rand.Int64N(int64(maxPowerLoad)))
			case 1:
				left = 1 + m.rand.IntN(maxEntries)
			default:
				m.disk.arm(fuse{1 + m.rand.IntN(maxPieces), cut})
			}
			time.AfterFunc(after, cut)
		default:
			m.journal = append(m.journal, e)
		}
		if left--; left == 0 {
			power(errCut) // instead of the answer that the guest waits for, or beside it
		}
		if _, err := conn.Write([]byte{'k'}); err != nil {
			return nil // cut
		}
	}
	return nil
}

func (m *machine) qemu(ctx context.Context) *exec.Cmd {
	in := func(name string) string { return filepath.Join(m.dir, name) }
	return exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "file:"+in("console"), "-serial", "file:"+in("output"),
		"-kernel", os.Getenv(kernelEnv), "-initrd", os.Getenv(initrdEnv),
		"-blockdev", "driver=nbd,node-name=d0,server.type=unix,server.path="+in("disk.sock")+",export=disk",
		"-device", "virtio-blk-pci,drive=d0,write-cache=on",
		"-drive", "file="+in("script")+",if=virtio,format=raw,readonly=on",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=journal,path="+in("journal.sock"), "-device", "virtserialport,chardev=journal",
		"-append", "console=ttyS0 quiet panic=-1 -- -test.run=^TestGuest$ -test.v -test.timeout=0")
}
