//go:build bench

package bench

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// What a round does on each side.
const (
	warmUp     = 20  // claims that are not counted, after the controller has started
	inTurn     = 100 // claims one by one
	burstSize  = 500 // claims at once
	claimSize  = "1Mi"
	roundsEnv  = "PLINTH_BENCH_ROUNDS"
	claimTurns = 5 // rounds, unless that says otherwise
)

// side is one of those that are compared: a StorageClass and who serves it.
type side struct {
	class      string
	controller types.NamespacedName

	// One value a round: seconds, claims a second, writes a claim.
	p50, made, deleted, makes, deletes []float64
	all                                []float64 // seconds, of every claim one by one
}

// TestClaims compares claims on the floor with claims of Plinth, on the pools
// that are quickest to make a volume. A node whose agent has nothing to do shows
// how much of the difference is the API's and how much the disk's.
func TestClaims(t *testing.T) {
	c := newCluster(t)
	c.only(plinth)
	c.class(simulatedPool)
	c.simulate(1)
	least, directory, btrfs := &side{class: "floor", controller: floor}, &side{class: "directory", controller: plinth}, &side{class: "btrfs", controller: plinth}
	nothing := &side{class: simulatedPool, controller: plinth}
	sides := []*side{least, nothing, directory, btrfs}
	for round := range number(t, roundsEnv, claimTurns) {
		for _, s := range sides {
			c.only(s.controller)
			c.round(s)
			t.Logf("round %d, %s: p50 %.1f ms, %.1f claims/s, deleted %.1f/s", round+1, s.class, 1e3*last(s.p50), last(s.made), last(s.deleted))
		}
		slices.Reverse(sides) // so that nobody is always first
	}
	c.tell(figure{
		Name:     "the same on a pool that does nothing: p50, burst",
		Measured: fmt.Sprintf("%.2f and %.2f of the floor's", quantile(ratios(nothing.p50, least.p50), 0.5), quantile(ratios(nothing.made, least.made), 0.5)),
	})
	c.compare(directory, least)
	c.compare(btrfs, least)
}

// round measures one side once.
func (c *cluster) round(s *side) {
	c.Helper()
	c.oneByOne(s.class, claimSize, warmUp)
	c.clear()
	times := c.oneByOne(s.class, claimSize, inTurn)
	c.clear()
	s.p50, s.all = append(s.p50, quantile(times, 0.5)), append(s.all, times...)

	before, cpu := c.writes(), readSpent()
	s.made = append(s.made, burstSize/c.burst(s.class, claimSize, burstSize).Seconds())
	c.Logf("%s, CPU to make a claim: %s", s.class, readSpent().since(cpu, burstSize))
	between := c.writes()
	s.deleted = append(s.deleted, burstSize/c.clear().Seconds())
	after := c.writes()
	makes, deletes := between.since(before, burstSize), after.since(between, burstSize)
	c.Logf("%s, API writes to make a claim: %v", s.class, makes)
	c.Logf("%s, API writes to delete a claim: %v", s.class, deletes)
	s.makes, s.deletes = append(s.makes, makes.sum()), append(s.deletes, deletes.sum())
}

// compare writes down how a side fares beside the floor.
func (c *cluster) compare(s, least *side) {
	c.Helper()
	median := func(values []float64) float64 { return quantile(values, 0.5) }
	rounds := ratios(s.p50, least.p50)
	ratio := median(rounds)
	c.tell(figure{
		Name: "claim to Bound, p50 ÷ the floor's, csi on " + s.class, Value: ratio,
		Measured: fmt.Sprintf("%.2f (%.1f ms, floor %.1f ms; %s)", ratio, 1e3*median(s.p50), 1e3*median(least.p50), spread(rounds)),
	}.atMost(1.3, ""))
	c.tell(figure{
		Name:     "claim to Bound, p99, csi on " + s.class,
		Measured: fmt.Sprintf("%.1f ms (floor %.1f ms)", 1e3*quantile(s.all, 0.99), 1e3*quantile(least.all, 0.99)),
	})
	rounds = ratios(s.made, least.made)
	ratio = median(rounds)
	c.tell(figure{
		Name: fmt.Sprintf("burst of %d claims, rate ÷ the floor's, csi on %s", burstSize, s.class), Value: ratio,
		Measured: fmt.Sprintf("%.2f (%.1f claims/s, floor %.1f claims/s; %s)", ratio, median(s.made), median(least.made), spread(rounds)),
	}.atLeast(0.9, ""))
	c.tell(figure{
		Name:     fmt.Sprintf("%d claims deleted at once, csi on %s", burstSize, s.class),
		Measured: fmt.Sprintf("%.1f claims/s (floor %.1f claims/s)", median(s.deleted), median(least.deleted)),
	})
	for _, w := range []struct {
		doing    string
		of, from []float64
	}{{"make", s.makes, least.makes}, {"delete", s.deletes, least.deletes}} {
		// Of capacities and nodes there is a write every few hundred milliseconds,
		// for all claims of that time.
		const forAll = 0.5
		more := median(w.of) - median(w.from)
		c.tell(figure{
			Name: fmt.Sprintf("API writes to %s a volume, beyond the floor's, csi on %s", w.doing, s.class), Value: more,
			Measured: fmt.Sprintf("%.2f (%.2f, floor %.2f)", more, median(w.of), median(w.from)),
		}.atMost(2+forAll, ""))
	}
}

// writes are the API server's so far.
func (c *cluster) writes() writes {
	c.Helper()
	metrics, err := c.kube.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(c.ctx)
	c.must(err, "read the API server's metrics")
	out, err := readWrites(bytes.NewReader(metrics))
	c.must(err, "read the API server's metrics")
	return out
}

func last(values []float64) float64 { return values[len(values)-1] }
