package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plinth-csi/plinth/driver/pool"
)

// collector reads all pools for whoever gathers.
type collector struct {
	series
	gauges   func() []pool.Gauge
	patience time.Duration

	mu       sync.Mutex
	underWay map[string]*reading // by pool
}

// reading is one that is under way. Those who come meanwhile share it.
type reading struct {
	done chan struct{} // closed when is is there
	is   pool.Reading
}

func newCollector(gauges func() []pool.Gauge, patience time.Duration) *collector {
	return &collector{series: newSeries(), gauges: gauges, patience: patience, underWay: map[string]*reading{}}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all() {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It is bounded in time.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	to := sink(ch)
	late := time.After(c.patience)
	gauges := c.gauges()
	begun := make([]*reading, len(gauges))
	for i, g := range gauges {
		begun[i] = c.begin(g)
	}
	over := false
	for i, g := range gauges {
		if !over {
			select {
			case <-begun[i].done:
			case <-late:
				over = true
			}
		}
		select {
		case <-begun[i].done:
			c.pool(to, begun[i].is.Pool)
			for _, v := range begun[i].is.Volumes {
				c.volume(to, v)
			}
		default:
			c.states(to, g.Pool, stateUnresponsive)
		}
	}
}

// begin begins to read a pool, unless that is under way.
func (c *collector) begin(g pool.Gauge) *reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.underWay[g.Pool]; r != nil {
		return r
	}
	r := &reading{done: make(chan struct{})}
	c.underWay[g.Pool] = r
	go func() {
		r.is = g.Read(context.Background()) // what hangs does not heed a context
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.underWay, g.Pool)
		close(r.done)
	}()
	return r
}
