//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// onDisk lists what the node still has of a volume: data, unfinished or
// trashed data, record, loop device, mount.
func (e *env) onDisk(v placed) []string {
	e.Helper()
	return e.traces([]placed{v})
}

// traces is onDisk for volumes that are in one pool of one node.
func (e *env) traces(of []placed) []string {
	e.Helper()
	if e.binary == "" {
		return nil // no way to look
	}
	at := of[0]
	script := fmt.Sprintf(`find %[1]s/volumes %[1]s/.plinth; cat /sys/block/loop*/loop/backing_file /proc/self/mountinfo 2>/dev/null; true`, at.pool.Path)
	var left []string
	for line := range strings.Lines(e.mustOnNode(at.Spec.NodeName, "sh", "-c", script)) {
		for _, v := range of {
			if strings.Contains(line, v.Name) {
				left = append(left, strings.TrimSpace(line))
				break
			}
		}
	}
	return left
}

// awaitFreed waits until PersistentVolumes, PlinthVolumes and every trace of
// the volumes on their nodes are gone.
func (e *env) awaitFreed(all ...placed) {
	e.Helper()
	type pool struct{ node, path string }
	where := map[pool][]placed{}
	names := map[string]bool{}
	for _, v := range all {
		names[v.Name] = true
		at := pool{v.Spec.NodeName, v.pool.Path}
		where[at] = append(where[at], v)
	}
	for _, r := range []kind{volumes, plinthVols} {
		e.awaitNone(r, names)
	}
	for at, of := range where {
		e.eventually("the bytes are free on "+at.node+" below "+at.path, func() error {
			if left := e.traces(of); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
			return nil
		})
	}
}

// awaitNone waits until no object of a kind has one of the names. It may take
// its time as long as they become fewer.
func (e *env) awaitNone(r kind, names map[string]bool) {
	e.Helper()
	for before := len(names) + 1; ; {
		left := ""
		count := 0
		err := e.poll(func() error {
			l, err := e.of(r).List(e.ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			count = 0
			for _, u := range l.Items {
				if names[u.GetName()] {
					count++
					left = u.GetName()
				}
			}
			if count > 0 && count >= before {
				return fmt.Errorf("%d %s are there", count, r.Resource)
			}
			return nil
		})
		if err != nil {
			e.Fatalf("not gone, and none went for %v: %v, such as\n%s", limit, err, e.describe(r, left))
		}
		if count == 0 {
			return
		}
		before = count
	}
}

// removeAll removes what the test made and fails it if any of it stays: the
// pods and claims with their namespace, the volumes, and last the classes.
// The namespace itself takes its time, so that is waited for after all tests.
func (e *env) removeAll() {
	e.Helper()
	mine := e.volumesOfTest()
	e.remove(namespaces, e.ns) // unless the test has
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	e.must(e.kube.CoreV1().Pods(e.ns).DeleteCollection(e.ctx, now, metav1.ListOptions{}), "delete the pods")
	e.eventually("the claims are gone", func() error {
		if left := list[corev1.PersistentVolumeClaim](e, claims); len(left) > 0 {
			return fmt.Errorf("%d are there, such as\n%s", len(left), e.describe(claims, left[0].Name))
		}
		return nil
	})
	for _, pv := range list[corev1.PersistentVolume](e, volumes) {
		if r := pv.Spec.ClaimRef; r != nil && r.Namespace == e.ns && pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain {
			e.remove(volumes, pv.Name)
			e.awaitGone(volumes, pv.Name)
			e.removeRetained(cmp.Or(pv.Annotations["plinth.dev/volume"], pv.Name))
		}
	}
	for _, v := range e.volumesOfTest() { // some may be newer
		if v.Spec.Retained && v.DeletionTimestamp == nil {
			e.removeRetained(v.Name)
		}
		mine = append(mine, v)
	}
	e.awaitFreed(mine...)
	ofTest := metav1.ListOptions{LabelSelector: testLabel + "=" + e.ns}
	e.must(e.kube.StorageV1().StorageClasses().DeleteCollection(e.ctx, metav1.DeleteOptions{}, ofTest), "delete the StorageClasses")
	e.must(e.kube.StorageV1().VolumeAttributesClasses().DeleteCollection(e.ctx, metav1.DeleteOptions{}, ofTest), "delete the VolumeAttributesClasses")
}

// removeRetained deletes a volume whose PersistentVolume is gone, once it may
// be deleted by hand.
func (e *env) removeRetained(name string) {
	e.Helper()
	await(e, plinthVols, name, "retained", retained)
	e.remove(plinthVols, name)
}

// volumesOfTest finds the volumes that were made for the test's claims.
func (e *env) volumesOfTest() []placed {
	e.Helper()
	var mine []placed
	for _, v := range list[v1alpha1.PlinthVolume](e, plinthVols) {
		if v.Spec.ClaimNamespace == e.ns {
			mine = append(mine, placed{PlinthVolume: v, pool: e.poolOn(v.Spec.NodeName, v.Spec.Pool)})
		}
	}
	return mine
}
