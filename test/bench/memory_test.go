//go:build bench

package bench

import (
	"fmt"
	"testing"
	"time"
)

const (
	agentVolumes      = 100
	controllerVolumes = 1000
	settleTime        = 15 * time.Second // until what follows a burst is published
	idleTime          = time.Minute
	lookEvery         = 2 * time.Second
	// idleShare is how much of a processor kubelet's probes may take of an idle
	// process: it is asked for its health every few seconds.
	idleShare = 0.2 // percent
)

// TestMemory measures the agent with volumes of every kind of pool, and the
// controller with many, right after they were made and while nothing happens.
// The largest that was seen counts.
func TestMemory(t *testing.T) {
	c := newCluster(t)
	c.only(plinth)
	agent := c.process("node", "plinth")
	controller := c.process("controller", "plinth-controller")

	empty := c.usage(agent, time.Second)
	c.Logf("agent without volumes: %v", empty.most)
	c.burst("image", "16Mi", agentVolumes/4)
	c.burst("directory", claimSize, agentVolumes/4)
	c.burst("btrfs", claimSize, agentVolumes/2)
	share := c.report("agent", agent, agentVolumes, 30)
	c.tell(figure{Name: "agent idle, CPU", Value: share, Measured: fmt.Sprintf("%.2f %% of one", share)}.atMost(idleShare, " %"))

	const more = controllerVolumes - agentVolumes
	c.burst("directory", claimSize, more/2)
	c.burst("btrfs", claimSize, more-more/2)
	share = c.report("controller", controller, controllerVolumes, 64)
	c.tell(figure{Name: "controller idle, CPU", Measured: fmt.Sprintf("%.2f %% of one", share)})
	c.Logf("agent with %d volumes: %v", controllerVolumes, c.usage(agent, time.Second).most)
	c.clear()
}

// report writes down what a process has in memory with so many volumes, and
// returns what it takes of a processor while idle, in percent.
func (c *cluster) report(name string, p process, volumes int, most float64) float64 {
	c.Helper()
	busy, err := p.memory()
	c.must(err, "read the memory of the "+name)
	c.pause(settleTime)
	idle := c.usage(p, idleTime)
	if busy.resident < idle.most.resident {
		busy = idle.most
	}
	c.tell(figure{
		Name: fmt.Sprintf("%s with %d volumes, memory", name, volumes), Value: float64(busy.resident) / mebibyte,
		Measured: fmt.Sprintf("%v (after an idle minute %v)", busy, idle.last),
	}.atMost(most, " MiB"))
	return 100 * idle.cpu.Seconds() / idle.over.Seconds()
}

// usage is what a process took over a time.
type usage struct {
	most, last memory
	cpu, over  time.Duration
}

func (c *cluster) usage(p process, over time.Duration) usage {
	c.Helper()
	var u usage
	began := time.Now()
	before, err := p.cpu()
	c.must(err, "read a CPU time")
	for time.Since(began) < over {
		c.pause(min(lookEvery, over))
		u.last, err = p.memory()
		c.must(err, "read a process's memory")
		if u.last.resident > u.most.resident {
			u.most = u.last
		}
	}
	after, err := p.cpu()
	c.must(err, "read a CPU time")
	u.cpu, u.over = after-before, time.Since(began)
	return u
}

// pause lets time pass, which is what is measured.
func (r *run) pause(d time.Duration) {
	r.Helper()
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
		r.Fatal(r.ctx.Err())
	}
}
