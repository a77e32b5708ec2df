package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/cgroup"
	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/loop"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
	"github.com/plinth-csi/plinth/test/cluster/internal/network"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

const (
	stopGrace = 45 * time.Second // for a machine to end in order
	killGrace = 20 * time.Second // for the kernel to bury a killed machine
)

// prepare gives m its folders, cgroup, network and files. The control plane
// comes first, for nodes are plugged into its network.
func (c *Cluster) prepare(m plan.Machine, a *kube.Authorities) error {
	control := plan.Control(c.Name)
	if err := c.store.Update(func(s *state.State) {
		if s.Machines[m.Name] == nil {
			s.Machines[m.Name] = &state.Machine{Index: m.Index}
		}
		s.Machines[m.Name].Stopped = false
	}); err != nil {
		return err
	}
	for _, dir := range []string{c.root(m), c.logs(m)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := cgroup.Make(m.Name); err != nil {
		return err
	}
	if !network.Exists(m.Name) {
		if err := network.MakeNamespace(m.Name); err != nil {
			return err
		}
	}
	if m.IsControl() {
		if err := network.SetUpControl(m); err != nil {
			return err
		}
		return kube.WriteControl(c.root(m), a)
	}
	if err := network.SetUpNode(control, m); err != nil {
		return err
	}
	return kube.WriteNode(c.root(m), a, m)
}

// routes makes every machine that has a network reach the pods of all others.
func (c *Cluster) routes() error {
	var nodes, all []plan.Machine
	for _, m := range c.machines() {
		if !network.Exists(m.Name) {
			continue
		}
		all = append(all, m)
		if !m.IsControl() {
			nodes = append(nodes, m)
		}
	}
	for _, m := range all {
		if err := network.Route(m, nodes); err != nil {
			return err
		}
	}
	return nil
}

// machines lists the recorded machines, the control plane first.
func (c *Cluster) machines() []plan.Machine {
	st := c.store.Get()
	var all []plan.Machine
	for _, name := range st.Names() {
		all = append(all, plan.Machine{Name: name, Index: st.Machines[name].Index})
	}
	return all
}

// boot starts the prepared machine m.
func (c *Cluster) boot(ctx context.Context, m plan.Machine) (*machine.Handle, error) {
	st := c.store.Get()
	spec := machine.Spec{Name: m.Name, Root: c.root(m), LogDir: c.logs(m)}
	groups := map[string]string{kube.BinCRI: "containerd", kube.BinK8s: "kubernetes"}
	var listener *os.File
	if m.IsControl() {
		groups = map[string]string{kube.BinEtcd: "etcd", kube.BinK8s: "kubernetes", kube.BinDNS: "coredns"}
		spec.Units = kube.ControlUnits(st.Options)
		spec.Relay = fmt.Sprintf("127.0.0.1:%d", plan.APIPort)
		var err error
		if listener, err = listen(st.Port); err != nil {
			return nil, err
		}
		defer listener.Close() //nolint:errcheck // the machine has its own
	} else {
		spec.Units = kube.NodeUnits(m)
		if err := c.plugDisks(ctx, m, &spec); err != nil {
			return nil, err
		}
	}
	for target, group := range groups {
		spec.Binds = append(spec.Binds, machine.Bind{Source: st.Tools[group], Target: target})
	}
	return machine.Start(spec, listener, func(p state.Process) error {
		return c.store.Update(func(s *state.State) { s.Machines[m.Name].Init = &p })
	})
}

// listen opens the port of the API server on the host's loopback.
func listen(port int) (*os.File, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen for clients of the API server: %w", err)
	}
	defer l.Close() //nolint:errcheck // File returns a copy
	return l.(*net.TCPListener).File()
}

// freePort finds a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// end ends the processes of m, with orderly first asking them to, and then
// takes from it what a machine without power does not have.
func (c *Cluster) end(ctx context.Context, m plan.Machine, orderly bool) error {
	record := c.store.Get().Machines[m.Name]
	if record == nil {
		return nil
	}
	if orderly {
		if err := record.Init.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := gone(ctx, record.Init, stopGrace); err != nil {
			c.Log.Printf("%s does not end in order: %v", m.Name, err)
		}
	}
	if err := record.Init.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if err := gone(ctx, record.Init, killGrace); err != nil {
		return fmt.Errorf("kill machine %s: %w", m.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	images, err := c.images(m)
	err = errors.Join(err,
		loop.DetachFamily(ctx, record.Loops),
		loop.DetachAll(ctx, append(c.diskFiles(m), images...)),
		cgroup.Remove(ctx, m.Name),
	)
	if !m.IsControl() { // the control plane's network joins the nodes, also while it is away
		err = errors.Join(err, network.Unplug(plan.Control(c.Name), m), network.RemoveNamespace(m.Name))
	}
	if err != nil {
		return fmt.Errorf("end machine %s: %w", m.Name, err)
	}
	return c.store.Update(func(s *state.State) {
		s.Machines[m.Name].Init, s.Machines[m.Name].Loops = nil, nil
		s.Machines[m.Name].Stopped = true
	})
}

// images are the files in m's own folder that programs in m have put behind
// loop devices.
func (c *Cluster) images(m plan.Machine) ([]string, error) {
	return loop.FilesBelow(c.machineDir(m), c.diskFiles(m))
}

// gone waits until p does not run.
func gone(ctx context.Context, p *state.Process, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs: %w", p.PID, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
