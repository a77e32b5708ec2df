//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// capacities reads what is published for a class: bytes that can be
// provisioned, by node. What every node reaches is under "".
func (e *env) capacities(class string) (map[string]int64, error) {
	l, err := e.kube.StorageV1().CSIStorageCapacities("").List(e.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	found := map[string]int64{}
	for _, c := range l.Items {
		if c.StorageClassName != class || c.NodeTopology == nil {
			continue
		}
		node := c.NodeTopology.MatchLabels[driverName+"/node"]
		if _, twice := found[node]; twice {
			return nil, fmt.Errorf("two CSIStorageCapacity objects for class %s and node %s", class, node)
		}
		if c.Capacity != nil {
			found[node] = c.Capacity.Value()
		}
	}
	return found, nil
}

// TestCapacityObjects: there is one for each class and node, it follows the
// pool, and it goes with its class.
func TestCapacityObjects(t *testing.T) { // alone: others change the pools too
	e := newEnv(t)
	const size = 64 << 20
	p := params{"pool": e.pool("btrfs")}
	class, names := e.class(p), e.nodeNames()
	var before map[string]int64
	e.eventually("capacity is published for every node", func() (err error) {
		if before, err = e.capacities(class); err != nil {
			return err
		}
		for _, n := range names {
			if before[n] < size {
				return fmt.Errorf("node %s offers %d bytes: %v", n, before[n], before)
			}
		}
		return nil
	})
	for _, c := range list[storagev1.StorageClass](e, classes) {
		if c.Provisioner != driverName {
			continue
		}
		e.eventually("capacity of class "+c.Name+" is published for every node", func() error {
			found, err := e.capacities(c.Name)
			if _, everywhere := found[""]; err == nil && !everywhere && len(found) != len(names) {
				err = fmt.Errorf("published are %v", found)
			}
			return err
		})
	}
	e.claim("data", class, "64Mi")
	home := e.volumeOf("data").Spec.NodeName
	e.eventually("capacity shrinks on the volume's node alone", func() error {
		now, err := e.capacities(class)
		if err != nil {
			return err
		}
		for _, n := range names {
			want := before[n]
			if n == home {
				want -= size
			}
			if !nearly(now[n], want) {
				return fmt.Errorf("node %s offers %d bytes, should offer %d; the volume is on %s", n, now[n], want, home)
			}
		}
		return nil
	})
	e.remove(claims, "data")
	e.eventually("capacity returns", func() error {
		now, err := e.capacities(class)
		if err == nil && !nearly(now[home], before[home]) {
			err = fmt.Errorf("node %s offers %d bytes, offered %d before", home, now[home], before[home])
		}
		return err
	})
	e.followsQuickly(class, home)
	e.remove(classes, class)
	e.eventually("the objects go with their class", func() error {
		left, err := e.capacities(class)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
}

// followsQuickly changes a pool several times and measures how long after the
// node's report of each change the capacity of the class says the same. The
// promise is a second; a test on a busy machine only prints the figure.
func (e *env) followsQuickly(class, node string) {
	e.Helper()
	pool := get[storagev1.StorageClass](e, classes, class).Parameters["pool"]
	lags := e.capacityLags(class, node, pool, func() {
		there := e.class(params{"pool": pool}, madeOn(node))
		for i := range 5 {
			claim := fmt.Sprint("step-", i)
			e.claim(claim, there, "16Mi")
			e.volumeOf(claim)
			e.eventually("capacity follows the pool", func() error {
				found, err := e.capacities(class)
				p := e.poolOn(node, pool)
				if has := p.Available.Value(); err == nil && found[node] != has {
					err = fmt.Errorf("published are %d bytes, the pool has %d", found[node], has)
				}
				return err
			})
		}
	})
	if len(lags) == 0 {
		e.Fatal("no change of the pool was seen to be published")
	}
	slices.Sort(lags)
	e.Logf("capacity was published %v after the node's report (median of %d), %v at most", lags[len(lags)/2], len(lags), lags[len(lags)-1])
}

// capacityLags watches while change is at work, and tells for each capacity
// that was published how long before the node had reported it.
func (e *env) capacityLags(class, node, pool string, change func()) []time.Duration {
	e.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	reports, err := e.dynamic.Resource(plinthNodes.GroupVersionResource).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + node})
	e.must(err, "watch the node")
	published, err := e.kube.StorageV1().CSIStorageCapacities("").Watch(ctx, metav1.ListOptions{})
	e.must(err, "watch the capacities")
	var mu sync.Mutex
	reported, seen := map[int64]time.Time{}, map[int64]time.Time{}
	first := func(m map[int64]time.Time, bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		if _, before := m[bytes]; !before {
			m[bytes] = time.Now()
		}
	}
	var watches sync.WaitGroup
	follow := func(w watch.Interface, take func(watch.Event)) {
		watches.Go(func() {
			for ev := range w.ResultChan() {
				if ev.Type == watch.Modified { // what was there before comes as Added
					take(ev)
				}
			}
		})
	}
	follow(reports, func(ev watch.Event) {
		if u, ok := ev.Object.(*unstructured.Unstructured); ok {
			if p := poolNamed(decode[v1alpha1.PlinthNode](e, u), pool); p != nil {
				first(reported, p.Available.Value())
			}
		}
	})
	follow(published, func(ev watch.Event) {
		c, ok := ev.Object.(*storagev1.CSIStorageCapacity)
		if ok && c.StorageClassName == class && c.Capacity != nil && c.NodeTopology.MatchLabels[driverName+"/node"] == node {
			first(seen, c.Capacity.Value())
		}
	})
	change()
	reports.Stop()
	published.Stop()
	watches.Wait()
	var lags []time.Duration
	for bytes, at := range seen {
		if from, ok := reported[bytes]; ok {
			lags = append(lags, max(at.Sub(from), 0).Round(time.Millisecond))
		}
	}
	return lags
}
