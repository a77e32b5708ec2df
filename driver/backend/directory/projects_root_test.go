//go:build root

package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/backend/tree"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/volume"
)

var small = volume.Spec{Mode: volume.Filesystem, Size: 1 << 20}

func inUse(t *testing.T, b *Directory) map[quota.Project]quota.Quota {
	t.Helper()
	used, err := quota.InUse(b.dir.File(), firstProject, lastProject)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestProjectOfTwoPools: pools on one filesystem make, remove and sweep at the
// same time, and no number is ever two volumes', nor a limit lost.
func TestProjectOfTwoPools(t *testing.T) {
	onEach(t, func(t *testing.T, fs string) {
		var pools []string
		for _, name := range []string{"a", "b"} {
			dir := filepath.Join(fs, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			pools = append(pools, dir)
		}
		const workers, rounds = 3, 8
		var wg sync.WaitGroup
		for _, dir := range pools {
			b := opened(t, Options{Dir: dir})
			keeper := &projects{plain: plain{dir: b.dir}}
			for w := range workers {
				wg.Go(func() {
					for r := range rounds {
						s := small
						s.ID = volume.ID(fmt.Sprintf("w%d-%d", w, r))
						if _, err := b.Ensure(t.Context(), s); err != nil {
							t.Errorf("make %s in %s: %v", s.ID, dir, err)
						}
						if r%2 == 0 {
							continue
						}
						if err := errors.Join(keeper.sweep(), b.Remove(t.Context(), s.ID)); err != nil {
							t.Errorf("remove %s in %s: %v", s.ID, dir, err)
						}
					}
				})
			}
		}
		wg.Wait()
		seen := map[quota.Project]string{}
		for _, dir := range pools {
			for w := range workers {
				for r := 0; r < rounds; r += 2 {
					path := filepath.Join(dir, "volumes", fmt.Sprintf("w%d-%d", w, r))
					id, q := projectOf(t, path)
					if other, twice := seen[id]; twice {
						t.Errorf("project %d is of %s and of %s", id, other, path)
					}
					seen[id] = path
					if q.Limits != (quota.Limits{Bytes: small.Size}) || q.Inodes != 1 {
						t.Errorf("%s: %+v", path, q)
					}
				}
			}
		}
		b := opened(t, Options{Dir: pools[0]}) // which sweeps
		if used := inUse(t, b); len(used) != len(seen) {
			t.Errorf("%d projects in use, by %d volumes", len(used), len(seen))
		}
	})
}

// TestProjectNotReused: a number whose files are still being deleted, one that
// a stranger has a file or a limit in, and one of a volume in the trash are
// given to nobody; all that is Plinth's comes back when the pool is opened.
func TestProjectNotReused(t *testing.T) {
	onEach(t, func(t *testing.T, pool string) {
		b := opened(t, Options{Dir: pool})
		s := small
		s.ID = "old"
		ensure(t, b, s)
		old, _ := projectOf(t, filepath.Join(pool, "volumes", "old"))
		if old != firstProject {
			t.Fatalf("the first number is %d", old)
		}
		open, err := os.Create(filepath.Join(pool, "volumes", "old", "open"))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		stranger := filepath.Join(pool, "stranger")
		if err := os.Mkdir(stranger, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(stranger)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := errors.Join(quota.SetProject(f, old+1), quota.SetLimits(f, old+2, quota.Limits{SoftInodes: 5})); err != nil {
			t.Fatal(err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := b.Remove(ctx, "old"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("removing what is still open: %v", err)
		}
		s.ID = "new"
		ensure(t, b, s)
		if id, _ := projectOf(t, filepath.Join(pool, "volumes", "new")); id != old+3 {
			t.Errorf("the new volume has project %d, and %d to %d are in use", id, old, old+2)
		}
		if err := open.Close(); err != nil {
			t.Fatal(err)
		}
		if err := quota.SetLimits(f, old+2, quota.Limits{}); err != nil {
			t.Fatal(err)
		}
		// XFS frees what was open in the background.
		for deadline := time.Now().Add(time.Minute); inUse(t, b)[old].Inodes != 0; {
			if time.Now().After(deadline) {
				t.Fatal("the file is never freed")
			}
		}
		b = opened(t, Options{Dir: pool})
		used := inUse(t, b)
		if len(used) != 2 || !used[old+1].Used() || !used[old+3].Used() {
			t.Errorf("in use after opening again: %v", used)
		}
	})
}

// TestProjectCuts stands for a cut at each step inside the making and freeing
// of a directory: what it leaves is given back when the pool is opened.
func TestProjectCuts(t *testing.T) {
	onEach(t, func(t *testing.T, pool string) {
		for name, cut := range map[string]func(k *projects, tmp string) error{
			"before a number": func(k *projects, tmp string) error { return k.dir.Mkdir(tmp, 0o755) },
			"before a limit": func(k *projects, tmp string) error {
				if err := k.dir.Mkdir(tmp, 0o755); err != nil {
					return err
				}
				f, err := k.plain.open(tmp)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = k.allocate(f)
				return err
			},
			"before the rename": func(k *projects, tmp string) error { return k.Make(tmp, tree.Limits{Bytes: 1 << 20}) },
			"before the limit is taken away": func(k *projects, tmp string) error {
				if err := k.Make(tmp, tree.Limits{Bytes: 1 << 20, Inodes: 5}); err != nil {
					return err
				}
				return k.plain.Free(t.Context(), tmp)
			},
		} {
			b := opened(t, Options{Dir: pool})
			if err := cut(&projects{plain: plain{dir: b.dir}}, layout.Directory.TmpPath("cut")); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			b = opened(t, Options{Dir: pool})
			if used := inUse(t, b); len(used) != 0 {
				t.Errorf("%s: in use after opening again: %v", name, used)
			}
			if left, err := os.ReadDir(filepath.Join(pool, ".plinth/tmp")); err != nil || len(left) != 0 {
				t.Errorf("%s: left are %v, %v", name, left, err)
			}
		}
	})
}
