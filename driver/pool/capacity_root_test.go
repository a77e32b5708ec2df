//go:build root

package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestSpaceIsTrue: whatever others and volumes hold, and whatever the reserve
// and the ratio are, a volume of exactly the size that Space says can be made,
// and one of a byte more is refused.
func TestSpaceIsTrue(t *testing.T) {
	for _, c := range []struct {
		fs, kind string
		mode     volume.Mode
	}{
		{"btrfs", BackendBtrfs, volume.Filesystem}, {"ext4", BackendImage, volume.Block},
		{"xfs", BackendImage, volume.Block}, {"ext4", BackendMemory, volume.Filesystem},
	} {
		for _, keys := range []PoolConfig{
			{Overcommit: 1}, {Overcommit: 1, Reserve: Reserve{Percent: 10}},
			{Overcommit: 2.5, Reserve: Reserve{Bytes: 100 << 20}},
		} {
			t.Run(fmt.Sprintf("%s on %s, reserve %v, overcommit %v", c.kind, c.fs, keys.Reserve, keys.Overcommit), func(t *testing.T) {
				o := optionsOn(loopfs.New(t, loopfs.Options{Type: c.fs, Size: 4 << 30}), c.kind)
				o.Backends[BackendMemory] = openMemory
				o.Config.Pools[0].Reserve, o.Config.Pools[0].Overcommit = keys.Reserve, keys.Overcommit
				m := open(t, o)
				seed := rand.Uint64()
				random := rand.New(rand.NewPCG(seed, 0))
				for i := range 6 {
					r := request(fmt.Sprint("held-", i), 64<<20+random.Int64N(128<<20))
					r.Mode = c.mode
					if _, err := m.Create(t.Context(), r); err != nil {
						t.Fatal(err)
					}
					stranger := filepath.Join(o.Config.Pools[0].Path, fmt.Sprint("stranger-", i))
					if err := os.WriteFile(stranger, make([]byte, random.IntN(16<<20)), 0o600); err != nil {
						t.Fatal(err)
					}
					if random.IntN(3) == 0 {
						if err := m.Delete(t.Context(), volume.ID(r.Name)); err != nil {
							t.Fatal(err)
						}
					}
					settle(t, o.Config.Pools[0].Path)
					exactly(t, m, c.mode, fmt.Sprintf("seed %d, step %d", seed, i))
				}
			})
		}
	}
}

// settle waits until the filesystem counts as free what is free. XFS gives
// some blocks back at a time of its own: what it set aside for data that was to
// be written and did not take, and those of a file that another has replaced.
func settle(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(unix.Syncfs(int(f.Fd())), device.AwaitFreed(f)); err != nil {
		t.Fatal(err)
	}
}

// exactly makes the largest volume that Space promises, and one larger.
func exactly(t *testing.T, m *Manager, mode volume.Mode, when string) {
	t.Helper()
	r := request("largest", 1)
	r.Mode = mode
	s, err := m.Space(t.Context(), r)
	if err != nil || s.Max <= 0 || s.Max > s.Available {
		t.Fatalf("%s: %+v, %v", when, s, err)
	}
	r.Size = s.Max + 1
	if _, err := m.Create(t.Context(), r); !errors.Is(err, volume.ErrNoCapacity) && !errors.Is(err, volume.ErrOutOfRange) {
		t.Errorf("%s: %d bytes are said to be there, %d were asked: %v", when, s.Max, r.Size, err)
	}
	r.Size = s.Max
	if _, err := m.Create(t.Context(), r); err != nil {
		t.Errorf("%s: %d bytes are said to be there and asked: %v", when, s.Max, err)
	}
	if err := m.Delete(t.Context(), "largest"); err != nil {
		t.Fatal(err)
	}
}
