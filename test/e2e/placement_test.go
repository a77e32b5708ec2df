//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	e.remove(classes, class)
	e.eventually("the objects go with their class", func() error {
		left, err := e.capacities(class)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
}

// TestPlacedWhereSpaceIs: when all nodes but one are filled, pods and claims
// go to that one, with either binding mode and for every volume type.
func TestPlacedWhereSpaceIs(t *testing.T) { // alone: it takes nearly all space
	e := newEnv(t)
	p := params{"pool": e.pool("btrfs")}
	names := e.nodeNames()
	roomy := names[len(names)-1]
	least := int64(1) << 62
	for _, n := range names {
		least = min(least, available(e.poolOn(n, p["pool"])))
	}
	class := e.class(p, waiting)
	for i, n := range names[:len(names)-1] {
		claim := fmt.Sprint("fill-", i)
		e.claim(claim, class, quantity(available(e.poolOn(n, p["pool"]))-least/8))
		e.pod(claim, claim, onlyOn(n))
	}
	for i := range names[:len(names)-1] {
		e.volumeOf(fmt.Sprint("fill-", i))
	}
	var late []string
	for _, volumeType := range []string{"csi", "local", "hostPath"} {
		typed := params{"pool": p["pool"], "volumeType": volumeType}
		for mode, change := range map[string]func(*storagev1.StorageClass){"waits": waiting, "immediate": func(*storagev1.StorageClass) {}} {
			claim := strings.ToLower(mode + "-" + volumeType)
			e.claim(claim, e.class(typed, change), quantity(least/7))
			e.pod(claim, claim)
			late = append(late, claim)
		}
	}
	for _, claim := range late {
		if got := e.volumeOf(claim).Spec.NodeName; got != roomy {
			t.Errorf("volume of claim %s is on %s; only %s had room", claim, got, roomy)
		}
		if got := await(e, pods, claim, "ready", ready).Spec.NodeName; got != roomy {
			t.Errorf("pod %s is on %s; only %s had room", claim, got, roomy)
		}
	}
}

// nearly leaves a filesystem a little for its own books.
func nearly(a, b int64) bool {
	const slack = 2 << 20
	return max(a-b, b-a) <= slack
}

// available is the largest volume that a pool can take now.
func available(p v1alpha1.PoolStatus) int64 {
	if m := p.MaxVolume.Value(); m > 0 {
		return min(m, p.Available.Value())
	}
	return p.Available.Value()
}

// quantity writes bytes as a claim does.
func quantity(bytes int64) string {
	return apiresource.NewQuantity(bytes, apiresource.BinarySI).String()
}

// TestExactFit: claims of pods that fill every node to the last volume are all
// bound, though the scheduler, which looks at one claim at a time, sends too
// many to one node at first; none is promised twice.
func TestExactFit(t *testing.T) { // alone: it takes all space
	const each = 8
	e := newEnv(t)
	p := params{"pool": e.pool("btrfs")}
	names := e.nodeNames()
	size := int64(1) << 62
	for _, n := range names {
		size = min(size, available(e.poolOn(n, p["pool"]))/each)
	}
	size -= 1 << 20 // for the filesystem's own books
	class := e.class(p, waiting)
	for i := range each * len(names) {
		claim := fmt.Sprint("fit-", i)
		e.claim(claim, class, quantity(size))
		e.pod(claim, claim, withoutGrace)
	}
	count := map[string]int{}
	for i := range each * len(names) {
		count[e.volumeOf(fmt.Sprint("fit-", i)).Spec.NodeName]++
	}
	for _, n := range names {
		if count[n] != each {
			t.Errorf("node %s has %d volumes, has room for %d: %v", n, count[n], each, count)
		}
	}
}
