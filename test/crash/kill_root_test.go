//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
)

// The environment of a run.
const (
	cutsEnv = "PLINTH_CRASH_CUTS" // in each pool for TestKill, in all for TestPowerLoss
	seedEnv = "PLINTH_CRASH_SEED"
)

// defaultCuts is how often each pool's process is killed.
const defaultCuts = 12

// roundCuts is how many cuts there are between two looks into everything.
const roundCuts = 12

const diskSize = 6 << 30

var (
	directories = []kindOfVolume{{size: 32 << 20}}
	images      = []kindOfVolume{{fsType: "ext4", size: 32 << 20}, {block: true, size: 32 << 20}, {fsType: "xfs", size: 304 << 20}}
)

// TestKill kills plinth again and again while it works, on real filesystems.
func TestKill(t *testing.T) {
	loopfs.NeedRoot(t)
	cuts, seed := fromEnvironment(t, defaultCuts)
	binary := build(t)
	// A test that is ended takes its filesystems away, too.
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM, syscall.SIGINT)
	var tried, lost atomic.Int64
	t.Cleanup(func() {
		stop()
		fmt.Printf("kill -9: %d cuts tried, %d losses found (%s=%d)\n", tried.Load(), lost.Load(), seedEnv, seed)
	})
	for _, c := range []struct {
		name, settings, disk string
		kinds                []kindOfVolume
		enforced             bool
	}{
		{"btrfs", "backend: btrfs", "btrfs", directories, true},
		{"image-xfs", "backend: image", "xfs", images, true},
		{"image-ext4", "backend: image", "ext4", images, true},
		{"directory-xfs", "backend: directory, quota: none", "xfs", directories, false},
		{"directory-ext4", "backend: directory, quota: none", "ext4", directories, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "plinth") // a socket's path is short (unix(7))
			if err != nil {
				t.Fatal(err)
			}
			disk := loopfs.New(t, loopfs.Options{Type: c.disk, Size: diskSize})
			n, err := newNode(binary, dir, disk.Dir, c.settings)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cleanUp(t, n) })
			k := killer{node: n, rand: rand.New(rand.NewPCG(seed, 1<<32)), kinds: c.kinds, enforced: c.enforced, seed: seed}
			err = k.run(ctx, t, cuts)
			tried.Add(int64(k.tried))
			if err != nil {
				if errors.Is(err, errLost) || errors.Is(err, errHalf) {
					lost.Add(1)
				}
				t.Errorf("after %d cuts (%s=%d), the last %v: %v\nthe end of the journal:\n%s", k.tried, seedEnv, seed, k.last, err, k.journal.tail())
			}
		})
	}
}

func fromEnvironment(t *testing.T, defaultCuts int) (cuts int, seed uint64) {
	t.Helper()
	cuts, seed = defaultCuts, rand.Uint64()
	var err error
	if s := os.Getenv(cutsEnv); s != "" {
		if cuts, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", cutsEnv, err)
		}
	}
	if s := os.Getenv(seedEnv); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d", seedEnv, seed)
	return cuts, seed
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "plinth")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", binary, "./cmd/plinth").CombinedOutput(); err != nil {
		t.Fatalf("build plinth: %v\n%s", err, out)
	}
	return binary
}

// cleanUp ends the process and takes away what it has mounted; loopfs takes
// away the rest with the disk.
func cleanUp(t *testing.T, n *node) {
	if t.Failed() && n.running != nil {
		t.Logf("the end of plinth's log:\n%s", n.running.log())
	}
	errs := []error{n.stop()}
	left, err := mount.AtOrBelow(n.dir)
	for i := len(left) - 1; i >= 0; i-- {
		errs = append(errs, mount.Unmount(left[i].Point))
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Errorf("clean up: %v", err)
		return
	}
	if err := os.RemoveAll(n.dir); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// killer cuts one pool's process.
type killer struct {
	node     *node
	rand     *rand.Rand
	kinds    []kindOfVolume
	enforced bool
	seed     uint64
	journal  memory
	tried    int
	last     moment
}

// run cuts, and looks into everything now and then and at the end.
func (k *killer) run(ctx context.Context, t *testing.T, cuts int) error {
	began := time.Now()
	if err := k.start(ctx); err != nil {
		return err
	}
	l, err := newLoad(ctx, k.node, &k.journal, k.seed, k.kinds, k.enforced)
	if err != nil {
		return err
	}
	if err := l.warmUp(ctx); err != nil {
		return err
	}
	for k.tried < cuts {
		if err := k.round(ctx, l, min(roundCuts, cuts-k.tried)); err != nil {
			return err
		}
	}
	if err := l.clear(ctx); err != nil {
		return fmt.Errorf("when everything is deleted: %w", err)
	}
	t.Logf("%d cuts, %v, %.1f s", k.tried, &k.journal, time.Since(began).Seconds())
	return nil
}

func (k *killer) round(ctx context.Context, l *load, cuts int) error {
	for range cuts {
		if err := k.cut(ctx, l); err != nil {
			return err
		}
	}
	if err := l.resumeAll(ctx); err != nil {
		return err
	}
	// What could not be freed while something else was there is at the next start.
	if err := errors.Join(k.node.stop(), k.start(ctx)); err != nil {
		return err
	}
	return l.settle(ctx)
}

// cut has the process work until it is killed, starts it again and compares.
func (k *killer) cut(ctx context.Context, l *load) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.last = pickMoment(k.rand)
	k.tried++
	if k.last.starting {
		k.node.running.kill()
		if err := k.node.launch(); err != nil {
			return err
		}
	}
	killed, err := k.last.killAt(k.node.running, k.node.pool)
	if err != nil {
		return err
	}
	if err := k.node.answers(ctx); err == nil {
		err = l.work(ctx)
		if err != nil {
			k.node.running.kill()
			<-killed
			return err
		}
	}
	<-killed
	k.journal.mark()
	if err := k.start(ctx); err != nil {
		return err
	}
	return l.afterCut(ctx)
}

// start starts the process, which has to answer.
func (k *killer) start(ctx context.Context) error {
	if err := k.node.launch(); err != nil {
		return err
	}
	if err := k.node.answers(ctx); err != nil {
		return fmt.Errorf("plinth does not answer: %w", err)
	}
	return nil
}
