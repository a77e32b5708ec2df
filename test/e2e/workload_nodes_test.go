//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// label puts a label on a node until the test ends, or takes it away.
func (e *env) label(node, key string, value any) {
	e.Helper()
	change := func(value any) {
		e.patch(nodes, node, map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
	}
	if value != nil {
		e.Cleanup(func() { change(nil) })
	}
	change(value)
}

// everywhere waits until a DaemonSet's pods serve on so many nodes, and gives
// the names of the pods by node.
func (e *env) everywhere(name string, n int) map[string]string {
	e.Helper()
	await(e, daemonSets, name, fmt.Sprintf("ready on %d nodes", n), func(d *appsv1.DaemonSet) error {
		s := d.Status
		if s.ObservedGeneration < d.Generation || int(s.DesiredNumberScheduled) != n || int(s.NumberReady) != n || s.NumberMisscheduled != 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	out := map[string]string{}
	for _, p := range list[corev1.Pod](e, pods) {
		if p.Labels["app"] == name && p.DeletionTimestamp == nil {
			out[p.Spec.NodeName] = p.Name
		}
	}
	return out
}

// caches waits until the sample serves on so many nodes, and gives the pods and
// their volumes by node.
func (e *env) caches(n int) (pods map[string]string, on map[string]placed) {
	e.Helper()
	pods, on = e.everywhere("cache", n), map[string]placed{}
	for _, pod := range pods {
		v := e.volumeOf(pod + "-cache")
		on[v.Spec.NodeName] = v
	}
	if got, want := slices.Sorted(maps.Keys(on)), slices.Sorted(maps.Keys(pods)); !slices.Equal(got, want) {
		e.Errorf("volumes are on %v, pods on %v", got, want)
	}
	return pods, on
}

// fillCaches writes to each of the volumes.
func (e *env) fillCaches(pods map[string]string) {
	e.Helper()
	for _, pod := range pods {
		e.mustSh(pod, "dd if=/dev/zero of=/cache/file bs=1M count=8 && sync")
	}
}

// TestWorkloadCache: a volume on every node; one that is left out gives its own
// back, and gets one when it is not any more; the DaemonSet takes all along.
func TestWorkloadCache(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("daemonset-cache.yaml")
	all := e.nodeNames()
	caches, made := e.caches(len(all))
	e.fillCaches(caches)
	node := all[len(all)-1]
	e.label(node, "sample.plinth.dev/no-cache", "")
	e.everywhere("cache", len(all)-1)
	e.awaitGone(pods, caches[node])
	e.awaitFreed(made[node])
	e.label(node, "sample.plinth.dev/no-cache", nil)
	_, made = e.caches(len(all))
	e.remove(daemonSets, "cache")
	for _, v := range made {
		e.awaitFreed(v)
	}
}

// TestWorkloadCacheNodes: a machine that joins the cluster gets a pod and a
// volume; when it is lost with its disks, they and all that is known of them
// go, and the others' stay.
func TestWorkloadCacheNodes(t *testing.T) { // alone: it adds a node and takes it away
	e := newEnv(t)
	e.sample("daemonset-cache.yaml")
	all := e.nodeNames()
	_, before := e.caches(len(all))
	node := e.join()
	caches, made := e.caches(len(all) + 1)
	e.fillCaches(caches)
	lost, ok := made[node]
	if !ok {
		t.Fatalf("%s joined and has no volume", node)
	}
	if left := e.onDisk(lost); len(left) == 0 {
		t.Errorf("nothing of volume %s is on %s", lost.Name, node)
	}

	e.power("remove", node)
	e.awaitGone(plinthNodes, node)
	e.awaitGone(pods, caches[node])
	e.awaitGone(claims, caches[node]+"-cache")
	e.awaitGone(volumes, lost.Name)
	e.removeTombstones(node)
	e.awaitGone(plinthVols, lost.Name)
	_, made = e.caches(len(all))
	for _, n := range all {
		if made[n].Name != before[n].Name {
			t.Errorf("the volume on %s was %s and is %s", n, before[n].Name, made[n].Name)
		}
	}
	e.remove(daemonSets, "cache")
	for _, v := range made {
		e.awaitFreed(v)
	}
}

// seriesOf reads Prometheus' text: values by series, as they are written.
func seriesOf(text string) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name+"}"] = n
		}
	}
	return out
}

// TestWorkloadMonitor: each monitor sees the pools and the volumes of its own
// node, with what they hold, and no others.
func TestWorkloadMonitor(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	backends := map[string]string{"btrfs": "", "image": "ext4"}
	holders := map[string]placed{}
	for backend, fsType := range backends {
		p := params{"pool": e.pool(backend)}
		if fsType != "" {
			p["csi.storage.k8s.io/fstype"] = fsType
		}
		e.claim(backend, e.class(p, waiting), "64Mi")
		e.pod(backend, backend)
		await(e, pods, backend, "ready", ready)
		e.mustSh(backend, "dd if=/dev/zero of=/data/file bs=1M count=16 && sync")
		holders[backend] = e.volumeOf(backend)
	}
	e.sample("daemonset-monitor.yaml")
	monitors := e.everywhere("monitor", len(e.nodeNames()))
	read := func(node string) (map[string]float64, error) {
		text, err := e.sh(monitors[node], "cat /series/last")
		return seriesOf(text), err
	}
	for backend, v := range holders {
		labels := fmt.Sprintf(`{claim=%q,claim_namespace=%q,pool=%q,volume=%q}`, backend, e.ns, v.Spec.Pool, v.Name)
		e.eventually("the monitor on "+v.Spec.NodeName+" sees what volume "+v.Name+" holds", func() error {
			s, err := read(v.Spec.NodeName)
			size, ok := s["plinth_volume_size_bytes"+labels]
			used, inodes := s["plinth_volume_used_bytes"+labels], s["plinth_volume_used_inodes"+labels]
			if err != nil || !ok || size != 64<<20 || used < 16<<20 || used > size || backend == "image" && inodes < 1 {
				return fmt.Errorf("size %v, used %v, inodes %v: %v", size, used, inodes, err)
			}
			return nil
		})
		for node := range monitors {
			if node == v.Spec.NodeName {
				continue // seen; while a busy pool is unresponsive a scrape is without it
			}
			s, err := read(node)
			if _, ok := s["plinth_volume_size_bytes"+labels]; err != nil || ok {
				t.Errorf("volume %s is on %s; the monitor on %s sees it: %v, %v", v.Name, v.Spec.NodeName, node, ok, err)
			}
		}
	}
	for node := range monitors {
		e.eventually("the monitor on "+node+" sees its pools", func() error { return e.poolsSeen(node, read) })
	}
}

// poolsSeen compares the series of pools with what their node reports.
func (e *env) poolsSeen(node string, read func(string) (map[string]float64, error)) error {
	s, err := read(node)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range e.poolsOf(node) {
		of := fmt.Sprintf("{pool=%q}", p.Name)
		if s[fmt.Sprintf(`plinth_pool_state{pool=%q,state=%q}`, p.Name, p.State)] != 1 {
			errs = append(errs, fmt.Errorf("pool %s is not %s", p.Name, p.State))
		}
		total, free, reserved := s["plinth_pool_capacity_bytes"+of], s["plinth_pool_free_bytes"+of], s["plinth_pool_reserved_bytes"+of]
		if p.State == "Ready" && (total != float64(p.Capacity.Value()) || free <= 0 || free > total || reserved < 0) {
			errs = append(errs, fmt.Errorf("pool %s has %v, %v free, %v reserved; its node says %s", p.Name, total, free, reserved, p.Capacity.String()))
		}
	}
	return errors.Join(errs...)
}

func (e *env) poolsOf(node string) []v1alpha1.PoolStatus {
	e.Helper()
	n := get[v1alpha1.PlinthNode](e, plinthNodes, node)
	if n == nil {
		e.Fatalf("there is no PlinthNode %s", node)
	}
	return n.Status.Pools
}
