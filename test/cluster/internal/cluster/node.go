package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/plinth-csi/plinth/test/cluster/internal/images"
	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

// onMachine runs work on the recorded machine called name, under the lock.
func (c *Cluster) onMachine(ctx context.Context, name string, work func(context.Context, plan.Machine) error) error {
	m, err := plan.Parse(c.Name, name)
	if err != nil {
		return err
	}
	return c.locked(ctx, func(ctx context.Context) error {
		st, err := c.loadUp()
		if err != nil {
			return err
		}
		if st.Machines[m.Name] == nil {
			return fmt.Errorf("cluster %s has no machine %s", c.Name, m.Name)
		}
		return work(ctx, m)
	})
}

// loadUp reads the state of a cluster that was made to its end.
func (c *Cluster) loadUp() (state.State, error) {
	st, err := c.load()
	if err != nil {
		return st, err
	}
	boot, err := state.BootID()
	if err != nil {
		return st, err
	}
	if st.Phase != state.Up || st.BootID != boot {
		return st, fmt.Errorf("cluster %s was interrupted: make it again with up, or end it with down", c.Name)
	}
	return st, nil
}

// Stop ends the machine called name in order; its disks stay.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	return c.onMachine(ctx, name, func(ctx context.Context, m plan.Machine) error { return c.end(ctx, m, true) })
}

// Kill cuts the power of the machine called name; its disks stay. With forget
// they lose what was not synced, where the filesystem can be told to.
func (c *Cluster) Kill(ctx context.Context, name string, forget bool) error {
	return c.onMachine(ctx, name, func(ctx context.Context, m plan.Machine) error {
		if forget && !m.IsControl() {
			if err := c.forgetUnsynced(m); err != nil {
				return err
			}
		}
		return c.end(ctx, m, false)
	})
}

// Start boots the machine called name and waits until it is of use. One that
// runs is left alone.
func (c *Cluster) Start(ctx context.Context, name string) error {
	return c.onMachine(ctx, name, c.start)
}

func (c *Cluster) start(ctx context.Context, m plan.Machine) error {
	switch {
	case c.store.Get().Machines[m.Name].Init.Alive():
		return nil
	case m.IsControl():
		return c.startControl(ctx, m)
	default:
		return c.startNode(ctx, m, func(context.Context, plan.Machine) error { return nil })
	}
}

// Remove takes the node called name out of the cluster for good, with its Node
// object and its disks.
func (c *Cluster) Remove(ctx context.Context, name string) error {
	return c.onMachine(ctx, name, func(ctx context.Context, m plan.Machine) error {
		if m.IsControl() {
			return errors.New("a cluster without its control plane is none: end it with down")
		}
		if err := c.end(ctx, m, false); err != nil {
			return err
		}
		api, err := c.client(c.store.Get())
		if err != nil {
			return err
		}
		if err := kube.DeleteNode(ctx, api, m); err != nil {
			return err
		}
		if err := os.RemoveAll(c.machineDir(m)); err != nil {
			return err
		}
		return c.store.Update(func(s *state.State) { delete(s.Machines, m.Name) })
	})
}

// Add joins a new node to the cluster. An empty name takes the first free one.
// It returns the name.
func (c *Cluster) Add(ctx context.Context, name string) (string, error) {
	err := c.locked(ctx, func(ctx context.Context) error {
		st, err := c.loadUp()
		if err != nil {
			return err
		}
		index := 1
		for name == "" && slices.Contains(st.Names(), plan.Node(c.Name, index).Name) {
			index++
		}
		if name == "" {
			name = plan.Node(c.Name, index).Name
		}
		m, err := plan.Parse(c.Name, name)
		if err != nil {
			return err
		}
		if st.Machines[m.Name] != nil {
			return fmt.Errorf("cluster %s has a machine %s already", c.Name, m.Name)
		}
		return c.startNode(ctx, m, c.shareImages)
	})
	return name, err
}

// startNode boots a node that does not run, whatever it was before. furnish is
// called when containerd runs and kubelet does not yet.
func (c *Cluster) startNode(ctx context.Context, m plan.Machine, furnish func(context.Context, plan.Machine) error) error {
	archive, err := images.Boot(ctx, c.Cache.Dir, c.Cache.Source)
	if err != nil {
		return err
	}
	// It may have died without us.
	if err := c.end(ctx, m, false); err != nil {
		return err
	}
	authorities, err := kube.LoadAuthorities(c.pki())
	if err != nil {
		return err
	}
	api, err := kube.NewClient(authorities, c.store.Get().Port)
	if err != nil {
		return err
	}
	if err := c.prepare(m, authorities); err != nil {
		return fmt.Errorf("prepare machine %s: %w", m.Name, err)
	}
	if err := c.routes(); err != nil {
		return err
	}
	h, err := c.boot(ctx, m)
	if err != nil {
		return err
	}
	defer h.Abandon()
	if err := kube.ApplyNode(ctx, api, m); err != nil {
		return err
	}
	if _, err := c.importInto(ctx, m, archive); err != nil {
		return err
	}
	if err := furnish(ctx, m); err != nil {
		return err
	}
	if err := h.Open(); err != nil {
		return err
	}
	if err := h.Release(); err != nil {
		return err
	}
	return c.awaitReady(ctx, api, []plan.Machine{m}, c.Log.Printf)
}

// startControl boots the control plane again, on the data it had.
func (c *Cluster) startControl(ctx context.Context, m plan.Machine) error {
	if err := c.end(ctx, m, false); err != nil {
		return err
	}
	authorities, err := kube.LoadAuthorities(c.pki())
	if err != nil {
		return err
	}
	if err := c.prepare(m, authorities); err != nil {
		return fmt.Errorf("prepare machine %s: %w", m.Name, err)
	}
	h, err := c.boot(ctx, m)
	if err != nil {
		return err
	}
	defer h.Abandon()
	if err := h.Release(); err != nil {
		return err
	}
	api, err := kube.NewClient(authorities, c.store.Get().Port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("the API server did not become ready in time"))
	defer cancel()
	return kube.Until(ctx, func(ctx context.Context) error { return api.Get(ctx, "/readyz", nil) })
}
