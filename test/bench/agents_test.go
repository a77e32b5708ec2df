//go:build bench

package bench

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

const (
	agentsEnv     = "PLINTH_BENCH_AGENTS" // how many nodes
	agents        = 1000
	volumesEnv    = "PLINTH_BENCH_VOLUMES" // how many in all
	volumesOfEach = 10
	blocks        = 10 // in which the volumes are made, each timed
	// keepsUp is how much of the first block's rate the last one has at least.
	keepsUp = 0.8
	// grows is how much more memory an agent may have beside many others, in MiB:
	// a garbage collection more or less, and not ten thousand volumes.
	grows = 3
)

// TestAgents has many nodes with many volumes on one API server: claims are
// bound as quickly at the end as at the beginning, and an agent knows nothing
// of the others. The nodes are Plinth's agents over storage that is not there,
// in this process; the controller is the installed one.
func TestAgents(t *testing.T) {
	c := newCluster(t)
	c.only(plinth)
	mine := c.process("node", "plinth")
	controller := c.process("controller", "plinth-controller")
	alone, err := mine.memory()
	c.must(err, "read the agent's memory")

	n := number(t, agentsEnv, agents)
	c.class(simulatedPool)
	began := time.Now()
	c.simulate(n)
	t.Logf("%d nodes in the ledger after %v", n, time.Since(began).Round(time.Second))
	each := number(t, volumesEnv, n*volumesOfEach) / blocks
	var rates []float64
	for range blocks {
		rates = append(rates, float64(each)/c.burst(simulatedPool, claimSize, each).Seconds())
		now, err := controller.memory()
		c.must(err, "read the controller's memory")
		t.Logf("%d claims more: %.1f claims/s, controller %v", each, last(rates), now)
	}
	c.tell(figure{
		Name: fmt.Sprintf("%d agents, %d volumes: rate of the last tenth ÷ of the first", n, blocks*each), Value: last(rates) / rates[0],
		Measured: fmt.Sprintf("%.2f (%.1f and %.1f claims/s)", last(rates)/rates[0], last(rates), rates[0]),
	}.atLeast(keepsUp, ""))
	now, err := controller.memory()
	c.must(err, "read the controller's memory")
	c.tell(figure{Name: fmt.Sprintf("controller with %d agents and %d volumes, memory", n, blocks*each), Measured: now.String()})
	beside, err := mine.memory()
	c.must(err, "read the agent's memory")
	c.tell(figure{
		Name: fmt.Sprintf("agent beside %d agents and %d volumes, memory more", n, blocks*each), Value: float64(beside.resident-alone.resident) / mebibyte,
		Measured: fmt.Sprintf("%.1f MiB (%v)", float64(beside.resident-alone.resident)/mebibyte, beside),
	}.atMost(grows, " MiB"))
}

// published says what is missing until so many simulated nodes say what they have.
func published(list runtime.Object, n int) error {
	var have int
	err := meta.EachListItem(list, func(o runtime.Object) error {
		if node, ok := o.(*v1alpha1.PlinthNode); ok && len(node.Status.Pools) == 1 && node.Status.Pools[0].Name == simulatedPool {
			have++
		}
		return nil
	})
	if err == nil && have < n {
		err = fmt.Errorf("there are %d", have)
	}
	return err
}
