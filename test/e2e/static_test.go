//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// byHand writes a PlinthVolume of 32Mi as docs/storageclass.md shows, without
// its finalizer, and waits until its node has made it.
func (e *env) byHand(name, node, pool, volumeType string) placed {
	e.Helper()
	e.apply(fmt.Sprintf(`{apiVersion: plinth.dev/v1alpha1, kind: PlinthVolume, metadata: {name: %s},
  spec: {nodeName: %s, pool: %s, size: 32Mi, volumeMode: Filesystem, volumeType: %s, claimNamespace: %s}}`, name, node, pool, volumeType, e.ns))
	e.Cleanup(func() {
		e.eventually("PlinthVolume "+name+" may be deleted, for no claim has it", func() error {
			if err := e.of(plinthVols).Delete(e.ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				return err
			}
			return nil
		})
	})
	v := await(e, plinthVols, name, "made", func(v *v1alpha1.PlinthVolume) error {
		if v.Status.Phase != v1alpha1.VolumeReady || len(v.Finalizers) != 1 {
			return fmt.Errorf("phase %s, finalizers %v: %s", v.Status.Phase, v.Finalizers, v.Status.Message)
		}
		return nil
	})
	return placed{PlinthVolume: v, pool: e.poolOn(node, pool)}
}

// persistent writes a PersistentVolume as docs/storageclass.md shows; source
// is its last part, "" for that of the volume's type.
func (e *env) persistent(name, policy, node, source string, annotations ...string) {
	e.Helper()
	e.apply(fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolume, metadata: {name: %s, annotations: {%s}},
  spec: {capacity: {storage: 32Mi}, accessModes: [ReadWriteOnce], storageClassName: %s, persistentVolumeReclaimPolicy: %s,
    claimRef: {namespace: %s, name: data},
    nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: %s/node, operator: In, values: [%s]}]}]}},
    %s}}`, name, strings.Join(annotations, ", "), e.ns, policy, e.ns, driverName, node, source))
	e.Cleanup(func() { e.remove(volumes, name) })
}

// ofVolume is the last part of a PersistentVolume for a volume.
func ofVolume(v placed) string {
	switch v.Spec.VolumeType {
	case v1alpha1.VolumeTypeLocal:
		return fmt.Sprintf("local: {path: %s}", v.Status.Path)
	case v1alpha1.VolumeTypeHostPath:
		return fmt.Sprintf("hostPath: {path: %s, type: Directory}", v.Status.Path)
	}
	return fmt.Sprintf("csi: {driver: %s, volumeHandle: %s}", driverName, v.Name)
}

// told watches for an event on a cluster-scoped object.
func (e *env) told(name, reason string, words ...string) {
	e.Helper()
	var missing error
	e.eventually("an event "+reason+" on "+name, func() error {
		l, err := e.kube.CoreV1().Events("default").List(e.ctx, metav1.ListOptions{
			FieldSelector: fields.SelectorFromSet(fields.Set{"involvedObject.name": name, "reason": reason}).String()})
		if err != nil {
			return err
		}
		missing = errors.New("there is none")
		for _, ev := range l.Items {
			if missing = says(ev.Message, words); missing == nil {
				return nil
			}
		}
		return missing
	})
}

func says(message string, words []string) error {
	for _, w := range words {
		if !strings.Contains(message, w) {
			return fmt.Errorf("%q does not say %q", message, w)
		}
	}
	return nil
}

// TestStatic: a PersistentVolume that an administrator writes on a volume made
// ahead of time is bound and used, with the volume's data and its limit; with
// Retain the volume stays for others to adopt, with Delete it is freed.
func TestStatic(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			node := e.nodeNames()[0]
			name := e.ns + "-shop"
			v := e.byHand(name, node, e.pool(c.backend), c.volumeType)
			mine := []string{"plinth.dev/volume: " + name, "pv.kubernetes.io/provisioned-by: " + driverName}
			e.persistent(name+"-1", "Retain", node, ofVolume(v), mine...)
			e.claim("data", e.ns, "32Mi")
			e.pod("first", "data")
			await(e, pods, "first", "ready", ready)
			e.mustSh("first", "echo kept > /data/file && sync")
			if out, err := e.sh("first", "dd if=/dev/zero of=/data/much bs=1M count=64"); err == nil {
				t.Errorf("64 MiB went into a volume of 32 MiB: %s", out)
			}
			e.mustSh("first", "rm -f /data/much")
			await(e, plinthVols, name, "noted for its claim", func(v *v1alpha1.PlinthVolume) error {
				if v.Spec.ClaimName != "data" || v.Spec.ClaimUID == "" {
					return fmt.Errorf("claim %s, UID %s", v.Spec.ClaimName, v.Spec.ClaimUID)
				}
				return nil
			})
			// With its PersistentVolume gone, it is there to be adopted, or for the next one.
			e.remove(pods, "first")
			e.remove(claims, "data")
			e.awaitGone(claims, "data")
			e.remove(volumes, name+"-1")
			await(e, plinthVols, name, "retained", retained)

			e.persistent(name+"-2", "Delete", node, ofVolume(v), mine...)
			e.claim("data", e.ns, "32Mi")
			e.pod("second", "data")
			await(e, pods, "second", "ready", ready)
			if got := e.mustSh("second", "cat /data/file"); got != "kept" {
				t.Errorf("the volume holds %q", got)
			}
			e.remove(pods, "second")
			e.remove(claims, "data")
			e.awaitGone(volumes, name+"-2")
			e.awaitFreed(v)
		})
	}
}

// TestStaticRefused: a PersistentVolume that does not fit its volume is told
// of, its pod does not start, and nothing is touched.
func TestStaticRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	all := e.nodeNames()
	node, other := all[0], all[1]
	v := e.byHand(e.ns+"-shop", node, e.pool("btrfs"), "csi")
	local := e.byHand(e.ns+"-local", node, e.pool("btrfs"), "local")
	alone := e.byHand(e.ns+"-alone", node, e.pool("btrfs"), "csi")
	handle := func(h string) string { return fmt.Sprintf("csi: {driver: %s, volumeHandle: %q}", driverName, h) }
	for _, c := range []struct {
		name, node, source string
		annotations        []string
		block              bool
		says               []string // on the PersistentVolume
		pod                string   // what the pod is told; "" is not tried
	}{
		{name: "wrong", node: node, source: handle("nosuch"), says: []string{"no PlinthVolume", "nosuch"}, pod: "nosuch"},
		{name: "climbing", node: node, source: handle("../../" + v.Name), says: []string{"no PlinthVolume", ".."}, pod: "not found"},
		{name: "elsewhere", node: other, source: ofVolume(v), says: []string{node, driverName + "/node"}, pod: "no pool of node " + other},
		{name: "block", node: node, source: ofVolume(v), block: true, says: []string{"volumeMode is Block", "Filesystem"}, pod: "Filesystem volume"},
		{name: "path", node: node, source: "local: {path: /etc}", annotations: []string{"plinth.dev/volume: " + local.Name}, says: []string{"/etc", local.Status.Path}},
		{name: "type", node: node, source: "hostPath: {path: " + local.Status.Path + "}", annotations: []string{"plinth.dev/volume: " + local.Name}, says: []string{"volumeType local"}},
	} {
		name := e.ns + "-" + c.name
		source := c.source
		if c.block {
			source += ", volumeMode: Block"
		}
		e.apply(strings.Replace(fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolume, metadata: {name: %s, annotations: {%s}},
  spec: {capacity: {storage: 32Mi}, accessModes: [ReadWriteOnce], storageClassName: CLASS, persistentVolumeReclaimPolicy: Retain,
    nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: %s/node, operator: In, values: [%s]}]}]}},
    %s}}`, name, strings.Join(c.annotations, ", "), driverName, c.node, source), "CLASS", name, 1))
		e.Cleanup(func() { e.remove(volumes, name) })
		e.told(name, "VolumeMismatch", c.says...)
		if c.pod == "" {
			continue
		}
		changes, devices := []func(*corev1.PersistentVolumeClaim){}, []func(*corev1.Pod){}
		if c.block {
			changes, devices = append(changes, block), append(devices, withDevice)
		}
		e.claim(c.name, name, "32Mi", changes...)
		e.pod(c.name, c.name, devices...)
		reason := "FailedMount"
		if c.block {
			reason = "FailedMapVolume"
		}
		e.awaitEvent(pods, c.name, reason, c.pod)
		e.remove(pods, c.name)
		e.remove(claims, c.name)
	}
	// One that would have it deleted, though it is of another type.
	thief := e.ns + "-thief"
	e.persistent(thief, "Delete", node, "hostPath: {path: /etc}", "plinth.dev/volume: "+alone.Name, "pv.kubernetes.io/provisioned-by: "+driverName)
	e.claim("data", e.ns, "32Mi")
	await(e, claims, "data", "bound", bound)
	e.remove(claims, "data")
	e.told(thief, "VolumeFailedDelete", "volumeType csi", "not deleted", "Retain")
	_, err := e.of(volumes).Patch(e.ctx, thief, mergePatch, []byte(`{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`), metav1.PatchOptions{})
	e.must(err, "take the way out")
	e.remove(volumes, thief)
	e.awaitGone(volumes, thief)
	for _, kept := range []placed{v, local, alone} {
		await(e, plinthVols, kept.Name, "there", func(v *v1alpha1.PlinthVolume) error {
			if v.DeletionTimestamp != nil {
				return errors.New("it is being deleted")
			}
			return nil
		})
		if left := e.onDisk(kept); len(left) == 0 {
			t.Errorf("nothing of %s is left on %s", kept.Name, node)
		}
	}
}
