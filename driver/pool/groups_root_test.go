//go:build root

package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/image"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// pairOnDisk are options of two pools on XFS.
func pairOnDisk(one, two string) Options {
	o := optionsOn(loopfs.FS{Dir: one}, BackendImage)
	o.Config.Pools = append(o.Config.Pools, PoolConfig{Name: "slow", Path: two, Backend: BackendImage, Overcommit: 1, Line: 3})
	return o
}

// pairMounted makes a volume in each of two pools on XFS, one ext4 and one xfs,
// and mounts both for the length of the test.
func pairMounted(t *testing.T) (o Options, a, b string) {
	t.Helper()
	o = pairOnDisk(loopfs.New(t, loopfs.Options{Type: "xfs", Size: 4 << 30}).Dir, loopfs.New(t, loopfs.Options{Type: "xfs", Size: 4 << 30}).Dir)
	m := open(t, o)
	defer m.Close()
	at := map[string]string{}
	for id, how := range map[string][2]string{"a": {"fast", "ext4"}, "b": {"slow", "xfs"}} {
		r := volume.Request{Name: id, Pool: how[0], Spec: volume.Spec{Size: 320 << 20, Mode: volume.Filesystem, FSType: how[1]}}
		if _, err := m.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		at[id] = mounted(t, m, volume.ID(id))
	}
	return o, at["a"], at["b"]
}

// mounted mounts a volume until the test ends.
func mounted(t *testing.T, m *Manager, id volume.ID) string {
	t.Helper()
	src, err := m.Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := mount.Device(src.Device, at, src.FSType, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(at); err != nil {
			t.Error(err)
		}
	})
	return at
}

// writer writes a growing number to a file and syncs it.
type writer struct{ *os.File }

func newWriter(t *testing.T, at string) writer {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(at, "number"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return writer{f}
}

func (w writer) put(n uint64) error {
	_, err := w.WriteAt(binary.LittleEndian.AppendUint64(nil, n), 0)
	return errors.Join(err, w.Sync())
}

// restoredNumber is the number in a snapshot.
func restoredNumber(t *testing.T, m *Manager, s volume.Snapshot) uint64 {
	t.Helper()
	r := volume.Request{Name: "r", Spec: volume.Spec{Size: s.Size, Mode: s.Mode, FSType: s.FSType}, From: volume.Content{Snapshot: s.ID}}
	if _, err := m.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	src, err := m.Attach(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := mount.Device(src.Device, at, src.FSType, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(at, "number"))
	if err := errors.Join(mount.Unmount(at), m.Detach(t.Context(), "r"), m.Delete(t.Context(), "r")); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(data) != 8 {
		t.Fatalf("%q, %v", data, err)
	}
	return binary.LittleEndian.Uint64(data)
}

// stagger cuts b only after a and after numbers that were written since, for
// which it waits a while: if a group were no more than one cut after the other,
// this would show it.
type stagger struct {
	cut     chan struct{} // a is
	written atomic.Uint64
}

const staggerPatience = 20 * time.Millisecond

type staggeredBackend struct {
	*image.Image
	*stagger
}

type staggeredCapture struct {
	backend.Capture
	of volume.ID
	*stagger
}

func (b staggeredBackend) Prepare(ctx context.Context, src, id volume.ID) (backend.Capture, error) {
	c, err := b.Image.Prepare(ctx, src, id)
	return staggeredCapture{c, src, b.stagger}, err
}

func (c staggeredCapture) Cut() error {
	if c.of == "a" {
		defer func() { c.cut <- struct{}{} }()
		return c.Capture.Cut()
	}
	<-c.cut
	patience := time.After(staggerPatience)
	for before := c.written.Load(); c.written.Load() < before+2; runtime.Gosched() {
		select {
		case <-patience:
			return c.Capture.Cut()
		default:
		}
	}
	return c.Capture.Cut()
}

// alternate writes 1, 2, 3 … to each of the two, first to a, until stop, and
// gives the longest that a write took.
func alternate(t *testing.T, a, b string, written *atomic.Uint64) (stop func() (uint64, time.Duration)) {
	t.Helper()
	one, two := newWriter(t, a), newWriter(t, b)
	if err := errors.Join(one.put(1), two.put(1)); err != nil { // so that there is something to find
		t.Fatal(err)
	}
	var ending atomic.Bool
	var longest time.Duration
	var n uint64
	done := make(chan error, 1)
	go func() {
		var err error
		for n = 2; err == nil && !ending.Load(); n++ {
			for _, w := range []writer{one, two} {
				began := time.Now()
				err = errors.Join(err, w.put(n))
				longest = max(longest, time.Since(began))
			}
			written.Store(n)
		}
		done <- errors.Join(err, one.Close(), two.Close())
	}()
	end := sync.OnceFunc(func() {
		ending.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return func() (uint64, time.Duration) {
		end()
		return n, longest
	}
}

// TestGroupUnderWriters: in every group the volume that is written second is
// never ahead of the first, and never behind by more than the write between.
func TestGroupUnderWriters(t *testing.T) {
	o, a, b := pairMounted(t)
	late := &stagger{cut: make(chan struct{}, 2)}
	o.Backends = map[string]OpenBackend{BackendImage: func(ctx context.Context, c PoolConfig) (backend.Opened, error) {
		b, err := image.Open(ctx, image.Options{Dir: c.Path})
		return staggeredBackend{b, late}, err
	}}
	m := open(t, o)
	stop := alternate(t, a, b, &late.written)
	const groups = 12
	var last uint64
	for i := range groups {
		name := fmt.Sprint("g", i)
		g, err := m.CreateGroup(t.Context(), group(name, "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		var found [2]uint64
		for j, s := range g.Snapshots {
			found[j] = restoredNumber(t, m, s)
		}
		if found[1] > found[0] || found[1]+1 < found[0] || found[0] < last {
			t.Errorf("group %d has %d in the first and %d in the second; the group before had %d", i, found[0], found[1], last)
		}
		last = found[0]
		if err := m.DeleteGroup(t.Context(), volume.ID(name)); err != nil {
			t.Error(err)
		}
	}
	n, longest := stop()
	t.Logf("%d groups over %d numbers; the longest write took %v", groups, n, longest)
	agree(t, m, "in the end")
}

// TestGroupsRefusedOnDisk: where no order of writes can be promised.
func TestGroupsRefusedOnDisk(t *testing.T) {
	for _, c := range []struct{ fs, kind, says string }{
		{"btrfs", BackendBtrfs, "pool fast (btrfs)"}, {"ext4", BackendImage, "no reflinks"}, {"xfs", BackendDirectory, "pool fast (directory)"},
	} {
		t.Run(c.kind+"-"+c.fs, func(t *testing.T) {
			m := open(t, realOptions(t, c.fs, c.kind))
			if _, err := m.Create(t.Context(), request("a", 64<<20)); err != nil {
				t.Fatal(err)
			}
			_, err := m.CreateGroup(t.Context(), group("g", "a"))
			if !errors.Is(err, volume.ErrUnsupported) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "image on XFS") || m.CanGroup() {
				t.Errorf("%v", err)
			}
			agreeGroups(t, m, "refused")
		})
	}
	t.Run("block", func(t *testing.T) {
		r := disk{realOptions(t, "xfs", BackendImage), volume.Block}
		m := open(t, r.o)
		for _, id := range []string{"a", "b"} {
			if _, err := m.Create(t.Context(), r.request(id, volume.Content{})); err != nil {
				t.Fatal(err)
			}
			r.put(t, m, volume.ID(id), 'x')
		}
		r.open(t, m, "a", func(*os.File) error {
			if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); !errors.Is(err, volume.ErrInUse) || !strings.Contains(err.Error(), "pool fast (image)") {
				t.Errorf("in use: %v", err)
			}
			return nil
		})
		agree(t, m, "refused")
		if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); err != nil {
			t.Error(err)
		}
		agree(t, m, "taken")
	})
}

// poolsOfVictim says, in the environment, which pools the process to be killed
// works on.
const poolsOfVictim = "PLINTH_TEST_VICTIM_POOLS"

// TestGroupVictim is no test: it takes groups until it is killed.
func TestGroupVictim(t *testing.T) {
	one, two, ok := strings.Cut(os.Getenv(poolsOfVictim), ":")
	if !ok {
		t.Skip("run by TestGroupsKilled")
	}
	m := open(t, pairOnDisk(one, two))
	for {
		if _, err := m.CreateGroup(t.Context(), group("g", "a", "b")); err != nil {
			t.Fatal(err)
		}
		if err := m.DeleteGroup(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGroupsKilled kills a process that takes groups of mounted volumes: at the
// next start nothing is frozen, and a group is whole or gone.
func TestGroupsKilled(t *testing.T) {
	o, a, b := pairMounted(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const kills = 40
	frozen := 0
	for i := range kills {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond+rand.N(240*time.Millisecond))
		victim := exec.CommandContext(ctx, self, "-test.run=^TestGroupVictim$")
		victim.Env = append(os.Environ(), poolsOfVictim+"="+o.Config.Pools[0].Path+":"+o.Config.Pools[1].Path)
		out, err := victim.CombinedOutput()
		cancel()
		if victim.ProcessState.Exited() {
			t.Fatalf("it ended by itself: %v: %s", err, out)
		}
		writes := make(chan error, 1)
		go func() { writes <- errors.Join(touch(a), touch(b)) }()
		select {
		case err := <-writes:
			writes <- err
		case <-time.After(50 * time.Millisecond):
			frozen++ // or slow: it is only counted
		}
		m := open(t, o)
		select {
		case err := <-writes:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a volume stays frozen")
		}
		agree(t, m, fmt.Sprint("killed ", i))
		if list, err := m.ListSnapshots(t.Context()); err != nil || len(list) != 0 && len(list) != 2 {
			t.Errorf("snapshots are %+v (%v)", list, err)
		}
		m.Close()
	}
	t.Logf("%d kills, after %d of which a volume waited to be thawed", kills, frozen)
}

func touch(at string) error {
	f, err := os.OpenFile(filepath.Join(at, "touched"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("x"), 0)
	return errors.Join(err, f.Sync(), f.Close())
}
