package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

// imported is what a node has taken from archives: for each archive, by its
// SHA-256, the images that came from it and their digests.
type imported map[string]map[string]string

// LoadImages brings the images of the archives, in the formats of Docker or OCI,
// to every running node. It returns the number of imports that were needed.
func (c *Cluster) LoadImages(ctx context.Context, archives []string) (int, error) {
	needed := 0
	err := c.locked(ctx, func(ctx context.Context) error {
		st, err := c.loadUp()
		if err != nil {
			return err
		}
		var mu sync.Mutex
		work, ctx := errgroup.WithContext(ctx)
		for _, m := range nodesOf(c.machines()) {
			if !st.Machines[m.Name].Init.Alive() {
				c.Log.Printf("%s does not run and gets no images", m.Name)
				continue
			}
			work.Go(func() error {
				for _, archive := range archives {
					did, err := c.importInto(ctx, m, archive)
					if err != nil {
						return err
					}
					if did {
						mu.Lock()
						needed++
						mu.Unlock()
					}
				}
				return nil
			})
		}
		return work.Wait()
	})
	return needed, err
}

// importInto brings the images of archive to the node m, and says whether that
// was needed.
func (c *Cluster) importInto(ctx context.Context, m plan.Machine, archive string) (bool, error) {
	did, err := c.importMissing(ctx, m, archive)
	if err != nil {
		return did, fmt.Errorf("load %s into %s: %w", archive, m.Name, err)
	}
	return did, nil
}

func (c *Cluster) importMissing(ctx context.Context, m plan.Machine, archive string) (bool, error) {
	f, err := os.Open(archive)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return false, err
	}
	key := fmt.Sprintf("%x", sum.Sum(nil))
	known, err := readImported(c.imageNotes(m))
	if err != nil {
		return false, err
	}
	before, err := c.imagesOn(ctx, m)
	if err != nil {
		return false, err
	}
	if names := known[key]; len(names) > 0 && contains(before, names) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	out, err := c.ctr(ctx, m, run.Command{Stdin: f}, "images", "import", "-")
	if err != nil {
		return false, err
	}
	after, err := c.imagesOn(ctx, m)
	if err != nil {
		return false, err
	}
	known[key] = named(after, string(out))
	return true, writeImported(c.imageNotes(m), known)
}

// shareImages gives the new node m what LoadImages has brought to the others,
// from the first of them that runs: the archives may be gone by now.
func (c *Cluster) shareImages(ctx context.Context, m plan.Machine) error {
	st := c.store.Get()
	for _, from := range nodesOf(c.machines()) {
		if from.Name == m.Name || !st.Machines[from.Name].Init.Alive() {
			continue
		}
		if err := c.copyImages(ctx, from, m); err != nil {
			return fmt.Errorf("give %s the images of %s: %w", m.Name, from.Name, err)
		}
		return nil
	}
	return nil
}

func (c *Cluster) copyImages(ctx context.Context, from, to plan.Machine) error {
	source, err := readImported(c.imageNotes(from))
	if err != nil {
		return err
	}
	known, err := readImported(c.imageNotes(to))
	if err != nil {
		return err
	}
	there, err := c.imagesOn(ctx, from)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for archive, names := range source {
		if _, has := known[archive]; has || !contains(there, names) {
			continue
		}
		known[archive] = names
		for name := range names {
			wanted[name] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := c.pipeImages(ctx, from, to, slices.Sorted(maps.Keys(wanted))); err != nil {
		return err
	}
	return writeImported(c.imageNotes(to), known)
}

// pipeImages copies the images called names. They are unpacked when a container
// is first made of them. Without --local, ctr sometimes ends before all is
// written.
func (c *Cluster) pipeImages(ctx context.Context, from, to plan.Machine, names []string) error {
	r, w := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		_, err := c.ctr(ctx, from, run.Command{Stdout: w}, append([]string{"images", "export", "--local", "-"}, names...)...)
		exported <- errors.Join(err, w.Close())
	}()
	_, err := c.ctr(ctx, to, run.Command{Stdin: r}, "images", "import", "--no-unpack", "-")
	r.CloseWithError(err) // of no use to the export any more
	return errors.Join(<-exported, err)
}

func (c *Cluster) imageNotes(m plan.Machine) string {
	return filepath.Join(c.machineDir(m), "images.json")
}

func writeImported(path string, known imported) error {
	raw, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}

func readImported(path string) (imported, error) {
	known := imported{}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(raw, &known) != nil {
		return imported{}, nil // cut short by a kill: it only saves work
	}
	return known, nil
}

// contains says whether all of want is in have.
func contains(have, want map[string]string) bool {
	for name, digest := range want {
		if have[name] != digest {
			return false
		}
	}
	return true
}

// named picks the images whose digests are in ctr's answer to an import: names
// it cuts short and changes. Kubernetes' own names for them are digests, too.
func named(all map[string]string, answer string) map[string]string {
	picked := maps.Clone(all)
	maps.DeleteFunc(picked, func(name, digest string) bool {
		return strings.HasPrefix(name, "sha256:") || !strings.Contains(answer, digest)
	})
	return picked
}

// imagesOn lists the images that m has, with their digests. It waits for the
// runtime to come up.
func (c *Cluster) imagesOn(ctx context.Context, m plan.Machine) (map[string]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("containerd does not answer"))
	defer cancel()
	found := map[string]string{}
	err := kube.Until(ctx, func(ctx context.Context) error {
		out, err := c.ctr(ctx, m, run.Command{}, "images", "ls")
		for line := range strings.Lines(string(out)) {
			// REF TYPE DIGEST SIZE …
			if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[2], "sha256:") {
				found[f[0]] = f[2]
			}
		}
		return err
	})
	return found, err
}

// ctr runs containerd's own client on m, in the namespace of Kubernetes. cmd says
// where its input and output are.
func (c *Cluster) ctr(ctx context.Context, m plan.Machine, cmd run.Command, args ...string) ([]byte, error) {
	var err error
	cmd.Argv, err = c.Enter(m.Name, append([]string{kube.BinCRI + "/ctr", "--namespace", "k8s.io"}, args...))
	if err != nil {
		return nil, err
	}
	return cmd.Run(ctx)
}
