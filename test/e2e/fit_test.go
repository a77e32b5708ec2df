//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestExactFit: 200 claims (90 with pods) that fill every node to the last volume are all
// bound, none of them stuck and no byte promised twice, whether the
// provisioner places them or the scheduler, which looks at one claim at a time
// and so sends too many to one node at first. One claim more is refused, and
// takes the place of the first that goes.
func TestExactFit(t *testing.T) { // alone: it takes all space
	const size = int64(24 << 20)
	for _, c := range []struct {
		name    string
		all     int // fewer where each has a pod, which is what takes the time
		binding func(*storagev1.StorageClass)
		noRoom  func(e *env) // waits until the claim too many is told so
	}{
		{"Immediate", 200, func(*storagev1.StorageClass) {}, func(e *env) { e.awaitEvent(claims, "more", "ProvisioningFailed", "no pool has room for 24Mi") }},
		{"WaitForFirstConsumer", 90, waiting, func(e *env) { e.awaitEvent(pods, "more", "FailedScheduling", "enough free storage") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			pool, names := e.pool("btrfs"), e.nodeNames()
			slots := e.leaveRoom(pool, c.all, size)
			class := e.class(params{"pool": pool}, c.binding)
			ask := func(name string) {
				e.claim(name, class, quantity(size))
				if c.name != "Immediate" {
					e.pod(name, name, withoutGrace, neverStarting)
				}
			}
			began := time.Now()
			for i := range c.all {
				ask(fmt.Sprint("fit-", i))
			}
			e.awaitAllBound(c.all + len(names))
			t.Logf("%d claims were bound after %v", c.all, time.Since(began).Round(100*time.Millisecond))
			e.fitsExactly(pool, slots, size)

			ask("more")
			c.noRoom(e)
			first := e.volumeOf("fit-0")
			e.remove(pods, "fit-0")
			e.remove(claims, "fit-0")
			if v := e.volumeOf("more"); v.Spec.NodeName != first.Spec.NodeName {
				t.Errorf("the claim too many is on %s, and the place that became free is on %s", v.Spec.NodeName, first.Spec.NodeName)
			}
		})
	}
}

// leaveRoom fills the pool on every node until there is room for so many
// volumes of that size in all, spread evenly, and returns how many on each.
func (e *env) leaveRoom(pool string, all int, size int64) map[string]int {
	e.Helper()
	names := e.nodeNames()
	slots := map[string]int{}
	there := map[string]int32{}
	for _, v := range list[v1alpha1.PlinthVolume](e, plinthVols) {
		if v.Spec.Pool == pool {
			there[v.Spec.NodeName]++
		}
	}
	for _, n := range names {
		// What was freed a moment ago may not be told yet, and would be room too many.
		await(e, plinthNodes, n, "telling what was freed", func(node *v1alpha1.PlinthNode) error {
			if p := poolNamed(node, pool); p == nil || p.Volumes != there[n] {
				return fmt.Errorf("pool %s is %+v, should have %d volumes", pool, p, there[n])
			}
			return nil
		})
	}
	for i, n := range names {
		slots[n] = all / len(names)
		if i < all%len(names) {
			slots[n]++
		}
		// Half a volume more, for what the filesystem needs for its own books.
		filler := available(e.poolOn(n, pool)) - int64(slots[n])*size - size/2
		if filler <= 0 {
			e.Fatalf("pool %s on %s is too small for %d volumes", pool, n, slots[n])
		}
		claim := fmt.Sprint("filler-", i)
		e.claim(claim, e.class(params{"pool": pool}, madeOn(n)), quantity(filler))
		e.volumeOf(claim)
	}
	for _, n := range names {
		await(e, plinthNodes, n, "filled", func(node *v1alpha1.PlinthNode) error {
			if p := poolNamed(node, pool); p == nil || available(*p)/size != int64(slots[n]) {
				return fmt.Errorf("pool %s is %+v, should have room for %d volumes of %d bytes", pool, p, slots[n], size)
			}
			return nil
		})
	}
	return slots
}

// neverStarting keeps kubelet from making containers for a pod: it waits for
// a ConfigMap that nobody makes. The scheduler does not look at that, so its
// claims are placed, bound and mounted as those of any pod.
func neverStarting(p *corev1.Pod) {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "never", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "never"}}}})
}

// awaitAllBound waits until so many claims of the namespace are bound. It may
// take its time as long as they become more.
func (e *env) awaitAllBound(count int) {
	e.Helper()
	for before := -1; ; {
		done := map[string]bool{}
		err := e.watchFor(claims, "", func(u *unstructured.Unstructured) error {
			if u == nil {
				return errors.New("there is none")
			}
			if decode[corev1.PersistentVolumeClaim](e, u).Status.Phase == corev1.ClaimBound {
				done[u.GetName()] = true
			}
			if len(done) < count {
				return fmt.Errorf("%d of %d claims are bound", len(done), count)
			}
			return nil
		})
		if err == nil {
			return
		}
		if len(done) == before {
			e.Fatalf("%v, and no more for %v, such as not\n%s", err, limit, e.describe(claims, e.unbound()))
		}
		before = len(done)
	}
}

// unbound names a claim that is not bound.
func (e *env) unbound() string {
	e.Helper()
	for _, c := range list[corev1.PersistentVolumeClaim](e, claims) {
		if bound(c) != nil {
			return c.Name
		}
	}
	return ""
}

// fitsExactly checks that each node has its number of the test's volumes, by
// the ledger and by the pool's own records, each with a claim of its own, and
// that no pool has promised more than it has.
func (e *env) fitsExactly(pool string, slots map[string]int, size int64) {
	e.Helper()
	holder := map[string]string{}
	for _, c := range list[corev1.PersistentVolumeClaim](e, claims) {
		if other, twice := holder[c.Spec.VolumeName]; twice {
			e.Errorf("volume %s is bound to the claims %s and %s", c.Spec.VolumeName, other, c.Name)
		}
		holder[c.Spec.VolumeName] = c.Name
	}
	on := map[string]int{}
	var mine []placed
	for _, v := range e.volumesOfTest() {
		if holder[v.Name] == "" {
			e.Errorf("volume %s on %s is nobody's", v.Name, v.Spec.NodeName)
		}
		if v.Spec.Size.Value() == size {
			on[v.Spec.NodeName]++
			mine = append(mine, v)
		}
	}
	for node, want := range slots {
		if on[node] != want {
			e.Errorf("node %s has %d volumes, has room for %d: %v", node, on[node], want, on)
		}
		p := e.poolOn(node, pool)
		if p.Reserved.Cmp(p.Capacity) > 0 {
			e.Errorf("pool %s on %s has %s and promises %s", pool, node, p.Capacity.String(), p.Reserved.String())
		}
		if records := e.recordsOf(mine, node); e.binary != "" && records != want {
			e.Errorf("node %s has records of %d of the volumes, should have %d", node, records, want)
		}
	}
}

// recordsOf counts the records of volumes on a node.
func (e *env) recordsOf(of []placed, node string) int {
	e.Helper()
	if e.binary == "" {
		return 0 // no way to look
	}
	there := map[string]bool{}
	for _, name := range strings.Fields(e.mustOnNode(node, "ls", of[0].pool.Path+"/.plinth/volumes")) {
		there[name] = true
	}
	count := 0
	for _, v := range of {
		if there[v.Name+".json"] {
			count++
		}
	}
	return count
}
