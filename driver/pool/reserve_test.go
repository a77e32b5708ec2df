package pool

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestAvailable(t *testing.T) {
	const gi = 1 << 30
	enforced := func(total, foreign int64) ground {
		return ground{capacity: volume.Capacity{Total: total, Free: total - foreign, Enforced: true}, foreign: foreign}
	}
	for _, c := range []struct {
		name     string
		cfg      PoolConfig
		g        ground
		promised int64
		want     int64
	}{
		{"empty", PoolConfig{Overcommit: 1}, enforced(100*gi, 0), 0, 100 * gi},
		{"promises count", PoolConfig{Overcommit: 1}, enforced(100*gi, 0), 40 * gi, 60 * gi},
		{"foreign bytes count", PoolConfig{Overcommit: 1}, enforced(100*gi, 10*gi), 40 * gi, 50 * gi},
		{"reserve by percent", PoolConfig{Overcommit: 1, Reserve: Reserve{Percent: 5}}, enforced(100*gi, 0), 0, 95 * gi},
		{"reserve by bytes", PoolConfig{Overcommit: 1, Reserve: Reserve{Bytes: 30 * gi}}, enforced(100*gi, 0), 0, 70 * gi},
		{"overcommit multiplies what is ours", PoolConfig{Overcommit: 2, Reserve: Reserve{Bytes: 30 * gi}}, enforced(100*gi, 20*gi), 10 * gi, 90 * gi},
		{"never negative", PoolConfig{Overcommit: 1, Reserve: Reserve{Bytes: 200 * gi}}, enforced(100*gi, 0), 0, 0},
		{"over-promised", PoolConfig{Overcommit: 1}, enforced(100*gi, 90*gi), 50 * gi, 0},
		{"no overflow", PoolConfig{Overcommit: 1000}, enforced(math.MaxInt64/4, 0), 5, math.MaxInt64 - 5},
		{"without limits, what is free", PoolConfig{Overcommit: 3, Reserve: Reserve{Bytes: 5 * gi}}, ground{capacity: volume.Capacity{Total: 100 * gi, Free: 25 * gi}}, 80 * gi, 20 * gi},
		{"whole disks, what is free whatever is promised", PoolConfig{Overcommit: 1}, ground{capacity: volume.Capacity{Total: 100 * gi, Free: 25 * gi, Enforced: true, Whole: true}}, 90 * gi, 25 * gi},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := available(c.cfg, c.g, c.promised); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestReservationRace: of many requests at once, exactly those that fit are
// met, in a pool of one process and in one that two nodes share.
func TestReservationRace(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %t", shared), func(t *testing.T) {
			dir := t.TempDir()
			managers := []*Manager{raceManager(t, dir, "node-1", shared)}
			if shared {
				managers = append(managers, raceManager(t, dir, "node-2", shared))
			}
			const asked, size = 40, 1 << 30
			errs := make([]error, asked)
			var wg sync.WaitGroup
			for i := range asked {
				wg.Go(func() {
					m := managers[i%len(managers)]
					_, errs[i] = m.Create(t.Context(), request(fmt.Sprintf("pvc-%d", i), size))
				})
			}
			wg.Wait()
			met := 0
			for _, err := range errs {
				switch {
				case err == nil:
					met++
				case !errors.Is(err, volume.ErrNoCapacity):
					t.Error(err)
				case !strings.Contains(err.Error(), "pool fast"):
					t.Errorf("%v names no pool", err)
				}
			}
			if met != testCapacity/size {
				t.Errorf("%d were met, %d fit", met, testCapacity/size)
			}
			for _, m := range managers {
				st := m.Pools(t.Context())[0]
				if st.Available != 0 || st.Reserved != testCapacity || st.Volumes != met {
					t.Errorf("status %+v", st)
				}
			}
		})
	}
}

func raceManager(t *testing.T, dir, node string, shared bool) *Manager {
	t.Helper()
	o := testOptions(dir)
	o.Node = node
	o.Config.Pools[0].Shared = shared
	return open(t, o)
}

// TestExpandReserves: growth is promised like anything else.
func TestExpandReserves(t *testing.T) {
	m := open(t, testOptions(t.TempDir()))
	create(t, m, "a", 1<<30)
	create(t, m, "b", 4<<30)
	if _, err := m.Expand(t.Context(), "a", 7<<30); !errors.Is(err, volume.ErrNoCapacity) {
		t.Errorf("7 GiB of 10, with 4 taken: %v", err)
	}
	agree(t, m, "refused growth")
	if v, err := m.Expand(t.Context(), "a", 6<<30); err != nil || v.Size != 6<<30 {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := m.Expand(t.Context(), "a", 1<<30); err != nil || v.Size != 6<<30 {
		t.Errorf("smaller is nothing to do: %+v, %v", v, err)
	}
	if _, err := m.Expand(t.Context(), "a", 20<<30); !errors.Is(err, volume.ErrOutOfRange) {
		t.Errorf("more than the pool can ever hold: %v", err)
	}
	agree(t, m, "grown")
}

// TestSharedVolumesOfTwoNodes: what one node makes the other sees, and one
// volume is not worked on by both.
func TestSharedVolumesOfTwoNodes(t *testing.T) {
	dir := t.TempDir()
	one, two := raceManager(t, dir, "node-1", true), raceManager(t, dir, "node-2", true)
	v := create(t, one, "a", 1<<30)
	if v.Node != "" {
		t.Errorf("a shared volume is on node %q", v.Node)
	}
	again := create(t, two, "a", 1<<30)
	if again.ID != v.ID || !again.CreatedAt.Equal(v.CreatedAt) {
		t.Errorf("%+v is not %+v", again, v)
	}
	unlock, err := one.slots()[0].pool.lockVolume("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Delete(t.Context(), "a"); !errors.Is(err, volume.ErrBusy) {
		t.Errorf("delete while the other node works: %v", err)
	}
	unlock()
	if err := two.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if _, err := one.Get(t.Context(), "a"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("after the other node deleted it: %v", err)
	}
}
