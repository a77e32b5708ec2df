package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plinth-csi/plinth/test/cluster/internal/images"
	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
	"github.com/plinth-csi/plinth/test/cluster/internal/tools"
)

// readyLimit is how long a cluster may take to become ready.
const readyLimit = 3 * time.Minute

// Up makes a cluster with the options, or finds that it is there. What an
// interrupted run left is cleaned away first; so is everything when Up fails.
func (c *Cluster) Up(ctx context.Context, o plan.Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("namespaces and mounts need root")
	}
	if err := tools.EnsurePackages(ctx, c.Log.Printf); err != nil {
		return err
	}
	if err := raiseHostLimits(); err != nil {
		return err
	}
	dirs, err := c.Cache.Build(ctx, tools.Names(), c.Log.Printf)
	if err != nil {
		return err
	}
	archive, err := images.Boot(ctx, c.Cache.Dir, c.Cache.Source)
	if err != nil {
		return err
	}
	return c.locked(ctx, func(ctx context.Context) error {
		fresh, err := c.reuse(ctx, o, dirs)
		if err != nil || !fresh {
			return err
		}
		if err := c.create(ctx, o, dirs, archive); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx) // whatever failed, failed because of this
			} else {
				err = errors.Join(err, c.keepEvidence())
			}
			c.Log.Printf("cleaning up after: %v", err)
			return errors.Join(err, c.destroy(context.WithoutCancel(ctx)))
		}
		c.Log.Printf("cluster %s is ready", c.Name)
		return nil
	})
}

// reuse looks at what is there. It returns true when a cluster has to be made.
func (c *Cluster) reuse(ctx context.Context, o plan.Options, dirs map[string]string) (bool, error) {
	st, err := c.load()
	if errors.Is(err, ErrNone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	boot, err := state.BootID()
	if err != nil {
		return false, err
	}
	if st.Phase != state.Up || st.BootID != boot {
		c.Log.Printf("cleaning away an interrupted cluster %s", c.Name)
		return true, c.destroy(ctx)
	}
	if st.Options != o {
		return false, fmt.Errorf("cluster %s is there with other options (%+v): end it first with down", c.Name, st.Options)
	}
	for group, dir := range dirs {
		if st.Tools[group] != dir {
			return false, fmt.Errorf("cluster %s runs another build of %s: end it first with down", c.Name, group)
		}
	}
	for _, m := range c.machines() { // the control plane comes first
		if err := c.start(ctx, m); err != nil {
			return false, err
		}
	}
	api, err := c.client(st)
	if err != nil {
		return false, err
	}
	c.Log.Printf("cluster %s is there already", c.Name)
	return false, c.awaitReady(ctx, api, nodesOf(c.machines()), func(string, ...any) {})
}

// create makes the cluster from nothing.
func (c *Cluster) create(ctx context.Context, o plan.Options, dirs map[string]string, archive string) error {
	boot, err := state.BootID()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	if err := c.refuseForeign(); err != nil {
		return err
	}
	c.store, err = state.Create(c.Dir, state.State{Options: o, Phase: state.Making, BootID: boot, Port: port, Tools: dirs})
	if err != nil {
		return err
	}
	authorities, err := kube.NewAuthorities(c.pki())
	if err != nil {
		return err
	}
	machines := []plan.Machine{plan.Control(c.Name)}
	for i := 1; i <= o.Nodes; i++ {
		machines = append(machines, plan.Node(c.Name, i))
	}
	for _, m := range machines {
		if err := c.prepare(m, authorities); err != nil {
			return fmt.Errorf("prepare machine %s: %w", m.Name, err)
		}
	}
	if err := c.routes(); err != nil {
		return err
	}
	if err := c.makeDisk(ctx, plan.Machine{}, shared); err != nil {
		return err
	}
	handles, err := c.bootAll(ctx, machines)
	// A machine that nobody releases ends with its handle.
	defer handles.abandon()
	if err != nil {
		return err
	}
	if err := c.settle(ctx, authorities, machines, handles, archive); err != nil {
		return err
	}
	if err := c.store.Update(func(s *state.State) { s.Phase = state.Up }); err != nil {
		return err
	}
	return handles.release()
}

// refuseForeign makes sure that Dir holds nothing that is not ours to delete.
func (c *Cluster) refuseForeign() error {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(entries) == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s holds something that is not a cluster", c.Dir)
}

// settle brings running machines to the point where pods can run everywhere.
func (c *Cluster) settle(ctx context.Context, a *kube.Authorities, machines []plan.Machine, handles *handles, archive string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("the cluster did not become ready in time"))
	defer cancel()
	st := c.store.Get()
	api, err := kube.NewClient(a, st.Port)
	if err != nil {
		return err
	}
	if err := c.writeKubeconfig(a, st.Port); err != nil {
		return err
	}
	nodes := nodesOf(machines)
	work, ctx := errgroup.WithContext(ctx)
	for _, m := range nodes {
		work.Go(func() error {
			_, err := c.importInto(ctx, m, archive)
			return err
		})
	}
	work.Go(func() error {
		for _, m := range nodes {
			if err := kube.Until(ctx, func(ctx context.Context) error { return kube.ApplyNode(ctx, api, m) }); err != nil {
				return err
			}
			if err := handles.open(m); err != nil {
				return err
			}
		}
		c.Log.Printf("the API server answers at 127.0.0.1:%d", st.Port)
		if err := kube.Until(ctx, func(ctx context.Context) error { return kube.ApplyDNS(ctx, api) }); err != nil {
			return err
		}
		return c.awaitReady(ctx, api, nodes, c.Log.Printf)
	})
	return work.Wait()
}

// awaitReady returns when the nodes are Ready and pods can be made. progress
// hears of each node.
func (c *Cluster) awaitReady(ctx context.Context, api *kube.Client, nodes []plan.Machine, progress func(string, ...any)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("the cluster did not become ready in time"))
	defer cancel()
	work, ctx := errgroup.WithContext(ctx)
	for _, m := range nodes {
		work.Go(func() error {
			if err := kube.Until(ctx, func(ctx context.Context) error { return kube.NodeReady(ctx, api, m) }); err != nil {
				return err
			}
			progress("node %s is ready", m.Name)
			return nil
		})
	}
	work.Go(func() error {
		return kube.Until(ctx, func(ctx context.Context) error { return kube.PodsWelcome(ctx, api) })
	})
	return work.Wait()
}

func (c *Cluster) writeKubeconfig(a *kube.Authorities, port int) error {
	raw, err := kube.Kubeconfig(a.CA, c.Name, fmt.Sprintf("https://127.0.0.1:%d", port), kube.Admin)
	if err != nil {
		return err
	}
	return os.WriteFile(c.Kubeconfig(), raw, 0o600)
}

func nodesOf(machines []plan.Machine) []plan.Machine {
	var nodes []plan.Machine
	for _, m := range machines {
		if !m.IsControl() {
			nodes = append(nodes, m)
		}
	}
	return nodes
}

// handles are the machines that this process still holds.
type handles struct {
	mu  sync.Mutex
	all map[string]*machine.Handle
}

// bootAll starts machines at once. It returns those that did start, also with an error.
func (c *Cluster) bootAll(ctx context.Context, machines []plan.Machine) (*handles, error) {
	h := &handles{all: map[string]*machine.Handle{}}
	work, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		work.Go(func() error {
			one, err := c.boot(ctx, m)
			if err != nil {
				return err
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.all[m.Name] = one
			return nil
		})
	}
	err := work.Wait()
	if err == nil {
		c.Log.Printf("%d machines run", len(machines))
	}
	return h, err
}

func (h *handles) open(m plan.Machine) error { return h.all[m.Name].Open() }

// release lets all machines live on.
func (h *handles) release() error {
	var errs []error
	for name, one := range h.all {
		errs = append(errs, one.Release())
		delete(h.all, name)
	}
	return errors.Join(errs...)
}

// abandon ends all machines that were not released.
func (h *handles) abandon() {
	for _, one := range h.all {
		one.Abandon()
	}
}
