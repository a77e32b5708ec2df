package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/plinth-csi/plinth/test/cluster/internal/cgroup"
	"github.com/plinth-csi/plinth/test/cluster/internal/loop"
	"github.com/plinth-csi/plinth/test/cluster/internal/network"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

// Down ends the cluster and leaves nothing of it. Absence is nil.
func (c *Cluster) Down(ctx context.Context) error {
	return c.locked(ctx, func(ctx context.Context) error {
		_, err := c.load()
		if errors.Is(err, ErrNone) {
			return c.removeEmpty()
		}
		if err != nil {
			return err
		}
		return c.destroy(ctx)
	})
}

// removeEmpty deletes what a run leaves that was killed before it wrote the
// first state, or after it deleted the last.
func (c *Cluster) removeEmpty() error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return nil //nolint:nilerr // absence is what is wanted
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".state-") {
			return fmt.Errorf("%s holds something that is not a cluster: it stays", c.Dir)
		}
	}
	return os.RemoveAll(c.Dir)
}

// destroy removes every recorded thing, and last the record.
func (c *Cluster) destroy(ctx context.Context) error {
	if c.store == nil {
		return nil
	}
	if err := c.store.Update(func(s *state.State) { s.Phase = state.Ending }); err != nil {
		return err
	}
	all := c.machines()
	var work errgroup.Group
	for _, m := range all {
		work.Go(func() error { return c.end(ctx, m, false) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	err := errors.Join(
		loop.DetachAll(wait, []string{c.diskFile(plan.Machine{}, shared)}),
		network.RemoveNamespace(plan.Control(c.Name).Name),
	)
	if err != nil {
		return err
	}
	if err := c.nothingLeft(all); err != nil {
		return err
	}
	if err := c.removeDir(); err != nil {
		return err
	}
	c.store = nil
	c.Log.Printf("nothing is left of cluster %s", c.Name)
	return nil
}

// nothingLeft says what is left although it should not be.
func (c *Cluster) nothingLeft(all []plan.Machine) error {
	var left []string
	files := []string{c.diskFile(plan.Machine{}, shared)}
	for _, m := range all {
		images, err := c.images(m)
		if err != nil {
			return err
		}
		files = append(append(files, c.diskFiles(m)...), images...)
		groups, err := cgroup.Left(m.Name)
		if err != nil {
			return err
		}
		left = append(left, groups...)
		if network.Exists(m.Name) {
			left = append(left, network.Path(m.Name))
		}
	}
	devices, err := loop.Family(files)
	if err != nil {
		return err
	}
	for _, d := range devices {
		left = append(left, d.Path)
	}
	mounts, err := mountsBelow(c.Dir)
	if err != nil {
		return err
	}
	left = append(left, mounts...)
	if len(left) > 0 {
		return fmt.Errorf("still there: %s", strings.Join(left, " "))
	}
	return nil
}

// mountsBelow lists the mounts in dir that the host sees. There should never be any.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var found []string
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found, scan.Err()
}

// removeDir deletes the folder, the state last: whoever finds it knows what to do.
func (c *Cluster) removeDir() error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "state.json" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.Dir, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.Dir)
}
