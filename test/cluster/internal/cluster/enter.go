package cluster

import (
	"fmt"
	"strconv"

	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

// Enter returns the command that runs argv inside the running machine called name.
func (c *Cluster) Enter(name string, argv []string) ([]string, error) {
	m, err := plan.Parse(c.Name, name)
	if err != nil {
		return nil, err
	}
	st, err := c.current()
	if err != nil {
		return nil, err
	}
	record := st.Machines[m.Name]
	if record == nil || !record.Init.Alive() {
		return nil, fmt.Errorf("machine %s does not run", m.Name)
	}
	return append([]string{
		"nsenter", "--target", strconv.Itoa(record.Init.PID),
		"--mount", "--net", "--pid", "--uts", "--ipc", "--",
	}, argv...), nil
}

// current is the state that this process works on, or else what is on disk.
func (c *Cluster) current() (state.State, error) {
	if c.store != nil {
		return c.store.Get(), nil
	}
	return c.load()
}
