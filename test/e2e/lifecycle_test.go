//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestInUseProtected: claim and PersistentVolume, deleted by hand while pods
// use them, stay until the last of these is gone, and the volume with them.
// Then its reclaim policy decides, as if nothing had been deleted by hand.
func TestInUseProtected(t *testing.T) {
	t.Parallel()
	for _, policy := range []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain} {
		for _, c := range []struct{ volumeType, backend string }{{"csi", "btrfs"}, {"csi", "image"}, {"local", "btrfs"}, {"hostPath", "image"}} {
			t.Run(string(policy)+" "+c.volumeType+" on "+c.backend, func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType},
					func(s *storagev1.StorageClass) { s.ReclaimPolicy = &policy }), "32Mi")
				e.pod("first", "data")
				await(e, pods, "first", "ready", ready)
				e.mustSh("first", "echo kept > /data/file && sync")
				v := e.volumeOf("data")

				// The PersistentVolume stays while its claim does, and serves new pods.
				e.remove(volumes, v.Name)
				await(e, volumes, v.Name, "marked and kept", marked[corev1.PersistentVolume])
				e.remove(pods, "first")
				e.awaitGone(pods, "first")
				e.pod("second", "data")
				await(e, pods, "second", "ready", ready)
				e.stillServes("second", v)

				// The claim stays while its pod does.
				e.remove(claims, "data")
				await(e, claims, "data", "marked and kept", marked[corev1.PersistentVolumeClaim])
				e.stillServes("second", v)
				await(e, volumes, v.Name, "marked and kept", marked[corev1.PersistentVolume])

				e.remove(pods, "second")
				e.awaitGone(claims, "data")
				if policy == corev1.PersistentVolumeReclaimDelete {
					e.awaitFreed(v)
					return
				}
				e.awaitGone(volumes, v.Name)
				await(e, plinthVols, v.Name, "retained", retained)
				e.hasBytes(v)
				e.remove(plinthVols, v.Name)
				e.awaitFreed(v)
			})
		}
	}
}

// marked is what await wants of an object that is to be deleted and is there.
func marked[T any](o *T) error {
	m, ok := any(o).(metav1.Object)
	if !ok || m.GetDeletionTimestamp() == nil {
		return errors.New("it is not marked for deletion")
	}
	return nil
}

// stillServes checks that a pod reads what is on its volume and writes to it,
// and that nobody has begun to delete that.
func (e *env) stillServes(pod string, v placed) {
	e.Helper()
	if got := e.mustSh(pod, "echo more > /data/more && sync && cat /data/file"); got != "kept" {
		e.Errorf("pod %s reads %q", pod, got)
	}
	if now := get[v1alpha1.PlinthVolume](e, plinthVols, v.Name); now == nil || now.DeletionTimestamp != nil {
		e.Errorf("PlinthVolume %s is being deleted or gone: %+v", v.Name, now)
	}
	e.hasBytes(v)
}

// TestPlinthVolumeDeletedByHand: a PlinthVolume that a claim has is not
// deleted by hand, used or not, and whoever tries is told what to delete
// instead. What the controller itself deletes is held by the node while it is
// mounted; then nothing is left of it, and its claim can be deleted.
func TestPlinthVolumeDeletedByHand(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}), "32Mi")
			v := e.volumeOf("data")
			refused := func() {
				t.Helper()
				err := e.of(plinthVols).Delete(e.ctx, v.Name, metav1.DeleteOptions{})
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), e.ns+"/data") {
					t.Fatalf("deleting a PlinthVolume that claim %s/data has: %v", e.ns, err)
				}
			}
			refused()
			e.pod("pod", "data")
			await(e, pods, "pod", "ready", ready)
			e.mustSh("pod", "echo kept > /data/file && sync")
			refused()
			e.stillServes("pod", v)

			if c.volumeType == "hostPath" {
				return // its mounts are the container runtime's, where the node does not see them
			}
			// As the controller, which never does so to a volume in use.
			controller := e.as(&e.plinthPods("controller")[0], true)
			e.must(controller.Resource(plinthVols.GroupVersionResource).Delete(e.ctx, v.Name, metav1.DeleteOptions{}), "delete as the controller")
			await(e, plinthVols, v.Name, "held by its node", func(v *v1alpha1.PlinthVolume) error {
				if v.DeletionTimestamp == nil || v.Status.Reason != v1alpha1.ReasonInUse {
					return fmt.Errorf("reason %q, message %q", v.Status.Reason, v.Status.Message)
				}
				return nil
			})
			if got := e.mustSh("pod", "cat /data/file"); got != "kept" {
				t.Errorf("the pod reads %q", got)
			}
			e.hasBytes(v)
			e.remove(pods, "pod")
			e.awaitGone(plinthVols, v.Name)
			e.remove(claims, "data")
			e.awaitFreed(v)
		})
	}
}

// TestNamespaceDeleted: when a namespace is deleted with pods, claims, inline
// and ephemeral volumes and a snapshot in it, it goes, and nothing of all that
// is left on any node. What is retained stays and is the administrator's.
func TestNamespaceDeleted(t *testing.T) {
	t.Parallel()
	outer := newEnv(t)
	inner := newEnv(t) // its cleanup finds it gone or going
	var made []placed
	for _, c := range variants {
		name := strings.ToLower(c.volumeType + "-" + c.backend)
		inner.claim(name, outer.class(params{"pool": inner.pool(c.backend), "volumeType": c.volumeType}, waiting), "32Mi")
		inner.pod(name, name)
	}
	generic := outer.class(params{"pool": inner.pool("btrfs")}, waiting)
	inner.pod("generic", "", ephemeral(generic, "16Mi"))
	inner.pod("inline", "", inline(params{"pool": inner.pool("btrfs"), "size": "16Mi"}, ""))
	inner.claim("kept", outer.class(params{"pool": inner.pool("btrfs")}, retaining), "16Mi")
	inner.claim("never", generic, "16Mi") // no pod ever asks for it
	for _, c := range variants {
		name := strings.ToLower(c.volumeType + "-" + c.backend)
		await(inner, pods, name, "ready", ready)
		made = append(made, inner.volumeOf(name))
	}
	await(inner, pods, "generic", "ready", ready)
	made = append(made, inner.volumeOf("generic-data"))
	short := await(inner, pods, "inline", "ready", ready)
	kept := inner.volumeOf("kept")
	snapshot := inner.snapshot("snapshot", outer.snapshotClass(), "csi-btrfs")

	outer.must(inner.kube.CoreV1().Namespaces().Delete(outer.ctx, inner.ns, metav1.DeleteOptions{}), "delete the namespace")
	outer.awaitGone(namespaces, inner.ns)
	outer.awaitFreed(made...)
	outer.awaitGone(plinthSnaps, snapshot)
	outer.awaitInlineGone(short, inner.pool("btrfs"))
	await(outer, volumes, kept.Name, "released", func(pv *corev1.PersistentVolume) error {
		if pv.Status.Phase != corev1.VolumeReleased {
			return fmt.Errorf("phase %s", pv.Status.Phase)
		}
		return nil
	})
	if left := outer.onDisk(kept); outer.binary != "" && len(left) == 0 {
		t.Errorf("nothing is left of volume %s, which is retained", kept.Name)
	}
	outer.remove(volumes, kept.Name)
	outer.awaitGone(volumes, kept.Name)
	outer.removeRetained(kept.Name)
	outer.awaitFreed(kept)
}
