//go:build root

package image

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// poolOfVictim says, in the environment, which pool the process to be killed
// works on.
const poolOfVictim = "PLINTH_TEST_VICTIM_POOL"

// TestVictim is no test: it takes snapshots and clones until it is killed.
func TestVictim(t *testing.T) {
	dir := os.Getenv(poolOfVictim)
	if dir == "" {
		t.Skip("run by TestKilledInTheMidst")
	}
	b, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	copied := volume.Spec{ID: "copy", Mode: volume.Filesystem, Size: 320 << 20} // enough for both
	for {
		_, snap := b.Snapshot(t.Context(), "source", "snap", nil)
		_, clone := b.Clone(t.Context(), "source", copied, nil)
		if err := errors.Join(snap, clone, b.RemoveSnapshot(t.Context(), "snap"), b.Remove(t.Context(), copied.ID)); err != nil {
			t.Fatal(err)
		}
	}
}

// kills is how many times TestKilledInTheMidst cuts.
const kills = 25

// TestKilledInTheMidst kills a process that takes snapshots and clones of a
// mounted volume. Whoever opens the pool next finds nothing half, and the
// consumer writes on.
func TestKilledInTheMidst(t *testing.T) {
	for fsType, size := range map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20} {
		t.Run(fsType, func(t *testing.T) { testKilled(t, fsType, size) })
	}
}

func testKilled(t *testing.T, fsType string, size int64) {
	pool, _, at := mounted(t, fsType, size)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range kills {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond+rand.N(180*time.Millisecond))
		victim := exec.CommandContext(ctx, self, "-test.run=^TestVictim$")
		victim.Env = append(os.Environ(), poolOfVictim+"="+pool)
		out, err := victim.CombinedOutput()
		cancel()
		if victim.ProcessState.Exited() {
			t.Fatalf("it ended by itself: %v: %s", err, out)
		}
		b, err := Open(t.Context(), Options{Dir: pool})
		if err != nil {
			t.Fatal(err)
		}
		if !writes(t, at, 10*time.Second) {
			t.Fatal("the volume stays frozen")
		}
		if left, err := os.ReadDir(filepath.Join(pool, ".plinth/tmp")); err != nil || len(left) != 0 {
			t.Errorf(".plinth/tmp holds %v (%v)", left, err)
		}
		if s, err := b.ListSnapshots(t.Context()); err != nil || len(s) > 1 || len(s) == 1 && s[0].Size != size {
			t.Errorf("snapshots are %+v (%v)", s, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
