//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

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

// TestRoomiestPool: of the pools that a class allows on the node, the one with
// the most free space takes the volume, and an event and the PlinthVolume say
// why; when it has become the fuller one, the other does.
func TestRoomiestPool(t *testing.T) { // alone: others change the pools too
	e := newEnv(t)
	node := e.nodeNames()[0]
	class := e.class(params{"pool": e.pool("btrfs") + ", " + e.pool("image")}, madeOn(node))
	room := func(pool string) int64 { return available(e.poolOn(node, pool)) }
	roomy, other := e.pool("btrfs"), e.pool("image")
	if room(other) > room(roomy) {
		roomy, other = other, roomy
	}
	// The first leaves the roomy pool with less than the other has.
	for i, c := range []struct{ size, pool string }{{quantity(room(roomy) - room(other)/2), roomy}, {"16Mi", other}} {
		claim := fmt.Sprint("claim-", i)
		e.claim(claim, class, c.size)
		v := e.volumeOf(claim)
		if v.Spec.Pool != c.pool {
			t.Errorf("claim %s of %s is in pool %s, where the most room was in %s", claim, c.size, v.Spec.Pool, c.pool)
		}
		why := e.awaitEvent(claims, claim, "VolumePlaced", "pool "+c.pool, "node "+node, "free", "best of")
		if v.Annotations["plinth.dev/placed"] != why {
			t.Errorf("the event says %q, the PlinthVolume %q", why, v.Annotations["plinth.dev/placed"])
		}
		await(e, plinthNodes, node, "reporting the volume", func(n *v1alpha1.PlinthNode) error {
			if p := poolNamed(n, c.pool); p == nil || p.Reserved.Cmp(v.Spec.Size) < 0 {
				return fmt.Errorf("pool %s is %+v", c.pool, p)
			}
			return nil
		})
	}
}

// TestAllowedTopologies: a class that names nodes, by themselves or by any
// other label, is kept to them with both binding modes; a pod that goes
// elsewhere stays Pending, and where no node is allowed the claim is told so.
func TestAllowedTopologies(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	names := e.nodeNames()
	only, pool := names[1], params{"pool": e.pool("btrfs")}
	byName, byLabel := madeOn(only), within(corev1.LabelHostname, only)
	for name, kept := range map[string]func(*storagev1.StorageClass){"name": byName, "label": byLabel} {
		e.claim("at-once-"+name, e.class(pool, kept), "16Mi")
		e.claim("waits-"+name, e.class(pool, waiting, kept), "16Mi")
		e.pod("waits-"+name, "waits-"+name)
		for _, claim := range []string{"at-once-" + name, "waits-" + name} {
			if got := e.volumeOf(claim).Spec.NodeName; got != only {
				t.Errorf("claim %s is on %s, its class allows %s", claim, got, only)
			}
		}
	}
	class := e.class(pool, waiting, byName)
	e.eventually("capacity is published for the allowed node alone", func() error {
		found, err := e.capacities(class)
		if err == nil && (len(found) != 1 || found[only] == 0) {
			err = fmt.Errorf("published are %v", found)
		}
		return err
	})
	e.claim("far", class, "16Mi")
	e.pod("far", "far", onlyOn(names[0]))
	e.awaitEvent(pods, "far", "FailedScheduling")
	e.claim("nowhere", e.class(pool, within("topology.kubernetes.io/zone", "no-such-zone")), "16Mi")
	e.awaitEvent(claims, "nowhere", "ProvisioningFailed", "allowedTopologies")
	for _, claim := range []string{"far", "nowhere"} {
		if c := get[corev1.PersistentVolumeClaim](e, claims, claim); c.Status.Phase != corev1.ClaimPending {
			t.Errorf("claim %s is %s", claim, c.Status.Phase)
		}
	}
}

// within has the class allow the nodes with a label of that value.
func within(label, value string) func(*storagev1.StorageClass) {
	return func(c *storagev1.StorageClass) {
		c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: label, Values: []string{value}}}}}
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
