//go:build root

package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/mount"
)

// guest is what a virtual machine is to do: the first line of its second
// disk. The journal follows, a line an entry.
type guest struct {
	FSType   string   `json:"fsType"`
	Options  []string `json:"options"`
	Settings string   `json:"settings"`
	Images   bool     `json:"images"`
	Seed     uint64   `json:"seed"`
	Last     bool     `json:"last"` // look into everything, delete it, and end
}

// What a machine says of itself, between the entries of its workers.
const (
	working phase = "working" // it may be cut from now on
	first   phase = "first"   // what could be provisioned at first
	fault   phase = "fault"
	over    phase = "over" // all was found and deleted
)

// Where things are in the virtual machine.
const (
	guestDisk    = "/dev/vda"
	guestScript  = "/dev/vdb"
	guestJournal = "/dev/vport*p1" // numbered by the device
	guestPool    = "/pool"
	guestBinary  = "/bin/plinth"
)

// TestGuest is no test: it is what the virtual machine runs.
func TestGuest(t *testing.T) {
	data, err := os.ReadFile(guestScript)
	if err != nil || os.Getpid() > 1000 {
		t.Skip("run by TestPowerLoss in a virtual machine")
	}
	port, err := openPort()
	if err != nil {
		t.Fatal(err)
	}
	j := &hostJournal{port: port}
	if err := runGuest(t.Context(), bytes.TrimRight(data, "\x00"), j); err != nil {
		t.Error(err)
		if err := j.record(entry{Phase: fault, Op: op{ID: err.Error()}}); err != nil {
			t.Error(err)
		}
	}
}

// portLimit bounds how long the kernel takes to show its ports.
const portLimit = time.Minute

// openPort waits for the port to the host, which the kernel learns of when it
// has begun to run programs.
func openPort() (*os.File, error) {
	for end := time.Now().Add(portLimit); ; <-time.After(20 * time.Millisecond) {
		ports, err := filepath.Glob(guestJournal)
		if err == nil && len(ports) > 0 {
			return os.OpenFile(ports[0], os.O_RDWR, 0)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no %s after %v (%v)", guestJournal, portLimit, err)
		}
	}
}

// hostJournal is kept by the machine's host, which answers each line.
type hostJournal struct {
	mu   sync.Mutex
	port *os.File
}

func (j *hostJournal) record(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.port.Write(append(line, '\n')); err != nil {
		return err
	}
	_, err = j.port.Read(make([]byte, 1))
	return err
}

func runGuest(ctx context.Context, script []byte, j journal) (err error) {
	lines := bufio.NewScanner(bytes.NewReader(script))
	lines.Scan()
	var g guest
	if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
		return err
	}
	var before []entry
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return err
		}
		before = append(before, e)
	}
	if err := os.MkdirAll(guestPool, 0o755); err != nil {
		return err
	}
	if err := mount.Device(guestDisk, guestPool, g.FSType, g.Options); err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	dir, err := os.MkdirTemp("", "plinth")
	if err != nil {
		return err
	}
	n, err := newNode(guestBinary, dir, guestPool, g.Settings)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && n.running != nil {
			err = fmt.Errorf("%w\nplinth's log:\n%s", err, n.running.log())
		}
	}()
	if err := errors.Join(n.launch(), n.answers(ctx)); err != nil {
		return err
	}
	kinds := directories
	if g.Images {
		kinds = images[:2] // mkfs.xfs takes long in an emulated machine
	}
	l, err := newLoad(ctx, n, j, g.Seed+uint64(len(before)), kinds, true)
	if err != nil {
		return err
	}
	for _, w := range l.workers {
		w.scribbles = true
	}
	return l.live(ctx, j, before, g.Last)
}

// live goes on with what the journal tells.
func (l *load) live(ctx context.Context, j journal, before []entry, last bool) error {
	for _, w := range l.workers {
		w.next = len(before)
	}
	for _, e := range before {
		switch {
		case e.Phase == first:
			l.atFirst = e.Op.Size
		case e.Op.Kind == reboot:
			for _, w := range l.workers {
				w.model.apply(e)
			}
		default:
			l.workers[e.Op.Worker].model.apply(e)
		}
	}
	if len(before) == 0 {
		if err := l.warmUp(ctx); err != nil {
			return err
		}
		if err := j.record(entry{Phase: first, Op: op{Size: l.atFirst}}); err != nil {
			return err
		}
	}
	if err := l.afterCut(ctx); err != nil {
		return err
	}
	if !last {
		if err := j.record(entry{Phase: working}); err != nil {
			return err
		}
		return l.work(ctx)
	}
	if err := errors.Join(l.resumeAll(ctx), l.node.stop(), l.node.launch(), l.node.answers(ctx)); err != nil {
		return err
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	if err := l.clear(ctx); err != nil {
		return fmt.Errorf("when everything is deleted: %w", err)
	}
	return errors.Join(l.node.stop(), j.record(entry{Phase: over}))
}
