package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

// Status is a cluster as it is now.
type Status struct {
	Name       string          `json:"name"`
	Dir        string          `json:"dir"`
	Phase      string          `json:"phase"` // absent, up, or interrupted
	Options    plan.Options    `json:"options"`
	Kubeconfig string          `json:"kubeconfig,omitempty"`
	Port       int             `json:"port,omitempty"`
	API        string          `json:"api,omitempty"` // ready, or what is wrong
	Machines   []MachineStatus `json:"machines,omitempty"`
}

// MachineStatus is one machine as it is now.
type MachineStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // running, stopped, or dead: ended without having been told to
	PID   int    `json:"pid,omitempty"`
	IP    string `json:"ip"`
	Ready string `json:"ready,omitempty"` // of a node: yes, or what is wrong
}

// Status looks at the cluster. It waits for nobody.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	out := Status{Name: c.Name, Dir: c.Dir, Phase: "absent"}
	st, err := c.load()
	if errors.Is(err, ErrNone) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	boot, err := state.BootID()
	if err != nil {
		return out, err
	}
	out.Options, out.Port, out.Phase = st.Options, st.Port, "interrupted"
	if st.Phase == state.Up && st.BootID == boot {
		out.Phase, out.Kubeconfig = "up", c.Kubeconfig()
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	api, err := c.client(st)
	if err == nil {
		err = api.Get(ctx, "/readyz", nil)
	}
	out.API = "ready"
	if err != nil {
		out.API = err.Error()
	}
	for _, m := range c.machines() {
		record := st.Machines[m.Name]
		one := MachineStatus{Name: m.Name, State: "dead", IP: m.IP()}
		if record.Stopped {
			one.State = "stopped"
		}
		if record.Init.Alive() {
			one.State, one.PID = "running", record.Init.PID
		}
		if out.API == "ready" && !m.IsControl() {
			one.Ready = "yes"
			if err := kube.NodeReady(ctx, api, m); err != nil {
				one.Ready = err.Error()
			}
		}
		out.Machines = append(out.Machines, one)
	}
	return out, nil
}
