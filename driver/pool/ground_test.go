package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// unlike says in what what is remembered of a pool is not what is on its disk.
func unlike(t *testing.T, p *pool) error {
	t.Helper()
	glance, err := p.look(t.Context(), time.Hour)
	if err != nil {
		return err
	}
	before := p.seen.foreign
	survey, err := p.survey(t.Context())
	if err != nil {
		return err
	}
	if glance.foreign < min(before, survey.foreign) {
		return fmt.Errorf("a glance finds %d foreign bytes, the survey before %d, the one after %d", glance.foreign, before, survey.foreign)
	}
	sum, volumes, err := p.promised()
	if err != nil {
		return err
	}
	entries, _, err := p.records.read()
	if err != nil {
		return err
	}
	for _, e := range entries {
		sum -= e.reserved()
	}
	if sum != 0 || volumes != len(entries) {
		return fmt.Errorf("%d bytes more are promised than the records say; %d volumes, %d records", sum, volumes, len(entries))
	}
	return nil
}

// TestGlance: whatever is made, grown, removed, refused, cut, written and
// taken away, by Plinth, by consumers and by others, what is remembered of the
// pool promises no more than a survey, and the same where nobody but Plinth
// did anything.
func TestGlance(t *testing.T) {
	for _, c := range []struct {
		name      string
		strangers bool // consumers and others write
		shared    bool
	}{{"alone", false, false}, {"shared", false, true}, {"with consumers", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(t.TempDir())
			o.Config.Pools[0].Shared = c.shared
			m := open(t, o)
			p, release, err := m.slots()[0].use()
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			for i := range 120 {
				done := randomStep(t, m, p, random, c.strangers)
				glance, err := p.look(t.Context(), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				if i%7 != 0 {
					continue // several steps between two surveys
				}
				if err := unlike(t, p); err != nil {
					t.Fatalf("seed %d, step %d, %s: %v", seed, i, done, err)
				}
				if now := p.seen.foreign; !c.strangers && glance.foreign != now {
					t.Fatalf("seed %d, step %d, %s: a glance finds %d foreign bytes, a survey %d", seed, i, done, glance.foreign, now)
				}
			}
		})
	}
}

func randomStep(t *testing.T, m *Manager, p *pool, random *rand.Rand, strangers bool) string {
	t.Helper()
	name := fmt.Sprint("v", random.IntN(12))
	size := random.Int64N(testCapacity / 6)
	kinds := 3
	if strangers {
		kinds = 6
	}
	var err error
	var done string
	switch random.IntN(kinds) {
	case 0:
		done = "create " + name
		_, err = m.Create(t.Context(), request(name, 1+size))
	case 1:
		done = "delete " + name
		err = m.Delete(t.Context(), volume.ID(name))
	case 2:
		done = "expand " + name
		_, err = m.Expand(t.Context(), volume.ID(name), 1+size)
	case 3:
		done = "write into " + name
		err = os.WriteFile(filepath.Join(p.cfg.Path, volumesDir, name, "data"), bytes.Repeat([]byte{1}, 1+random.IntN(1<<20)), 0o600)
	case 4:
		done = "write beside " + name
		err = os.WriteFile(filepath.Join(p.cfg.Path, volumesDir, "stranger."+name), bytes.Repeat([]byte{1}, 1+random.IntN(1<<20)), 0o600)
	case 5:
		done = "remove beside " + name
		err = os.Remove(filepath.Join(p.cfg.Path, volumesDir, "stranger."+name))
	}
	if err != nil && !errors.Is(err, volume.ErrExists) && !errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrNoCapacity) && !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s: %v", done, err)
	}
	return done
}

// countingBackend counts how often it is asked for all volumes.
type countingBackend struct {
	backend.Opened
	lists *int
}

func (b countingBackend) List(ctx context.Context) ([]volume.Info, error) {
	*b.lists++
	return b.Opened.List(ctx)
}

// TestWorkPerVolume: what a volume costs does not depend on how many there
// are: neither making one nor the pool's status afterwards lists them, until
// there seems to be no room.
func TestWorkPerVolume(t *testing.T) {
	var lists int
	o := testOptions(t.TempDir())
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return countingBackend{b, &lists}, err
	}}
	m := open(t, o)
	create(t, m, "first", 1<<20)
	m.slots()[0].pool.seen.took = time.Hour // however slow this machine is
	lists = 0
	for i := range 20 {
		create(t, m, fmt.Sprint("v", i), 1<<20)
		m.Pools(t.Context())
	}
	if lists != 0 {
		t.Errorf("all volumes were listed %d times", lists)
	}
	if _, err := m.Create(t.Context(), request("big", testCapacity)); !errors.Is(err, volume.ErrNoCapacity) {
		t.Error(err)
	}
	if lists == 0 {
		t.Error("a request was refused without a look at what is there")
	}
}
