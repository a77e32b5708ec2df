//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// adopting has a claim take a retained volume.
func adopting(name string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{"plinth.dev/adopt": name}
	}
}

func retained(v *v1alpha1.PlinthVolume) error {
	if v.Status.Phase != v1alpha1.VolumeRetained {
		return fmt.Errorf("phase %s", v.Status.Phase)
	}
	return nil
}

// TestRetainAndAdopt: a volume whose PersistentVolume is deleted is Retained;
// a claim that names it gets it with its data, on its node, and may delete it.
func TestRetainAndAdopt(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"csi", "local", "hostPath"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool("btrfs"), "volumeType": kind}
			keep := e.class(p, waiting, retaining)
			e.claim("first", keep, "32Mi")
			e.pod("first", "first")
			await(e, pods, "first", "ready", ready)
			e.mustSh("first", "echo kept > /data/file && sync")
			old := e.volumeOf("first")
			e.remove(pods, "first")
			e.remove(claims, "first")
			await(e, volumes, old.Name, "released", released)
			// Not before: its PersistentVolume may still be bound by hand. Steering tells
			// so, or the provisioner if the scheduler has been faster.
			e.claim("early", keep, "32Mi", adopting(old.Name))
			e.pod("early", "early")
			e.awaitEvent(claims, "early", "", "cannot be adopted", old.Name, "PersistentVolume")
			e.remove(volumes, old.Name) // and it is taken as soon as it is Retained

			await(e, pods, "early", "ready", ready)
			if got := e.mustSh("early", "cat /data/file"); got != "kept" {
				t.Errorf("adopted with %q", got)
			}
			c := await(e, claims, "early", "bound", bound)
			pv := get[corev1.PersistentVolume](e, volumes, c.Spec.VolumeName)
			if pv == nil || pv.Annotations["plinth.dev/volume"] != old.Name {
				t.Fatalf("PersistentVolume %+v", pv)
			}
			await(e, plinthVols, old.Name, "ready again", func(v *v1alpha1.PlinthVolume) error {
				if v.Status.Phase != v1alpha1.VolumeReady || v.Spec.ClaimName != "early" {
					return fmt.Errorf("phase %s, claim %s", v.Status.Phase, v.Spec.ClaimName)
				}
				return nil
			})
			// Another claim of a class that deletes takes it, and takes it along when it goes.
			e.remove(pods, "early")
			e.remove(claims, "early")
			e.awaitGone(claims, "early")
			e.remove(volumes, pv.Name)
			await(e, plinthVols, old.Name, "retained again", retained)
			e.claim("last", e.class(p, func(*storagev1.StorageClass) {}), "16Mi", adopting(old.Name))
			await(e, claims, "last", "bound", bound)
			e.remove(claims, "last")
			e.awaitFreed(old)
		})
	}
}

// TestAdoptRefused: a retained volume is for its own namespace, unless an
// administrator allows another.
func TestAdoptRefused(t *testing.T) {
	t.Parallel()
	e, thief := newEnv(t), newEnv(t)
	p := params{"pool": e.pool("btrfs")}
	e.claim("data", e.class(p, retaining), "32Mi")
	v := e.volumeOf("data")
	e.remove(claims, "data")
	e.awaitGone(claims, "data")
	e.remove(volumes, v.Name)
	await(e, plinthVols, v.Name, "retained", retained)
	class := thief.class(p)
	thief.claim("data", class, "32Mi", adopting(v.Name))
	thief.awaitEvent(claims, "data", "ProvisioningFailed", "plinth.dev/adopters")
	e.claim("large", e.class(p), "64Mi", adopting(v.Name))
	e.awaitEvent(claims, "large", "ProvisioningFailed", "32Mi", "64Mi")

	_, err := e.of(plinthVols).Patch(e.ctx, v.Name, mergePatch, []byte(`{"metadata":{"annotations":{"plinth.dev/adopters":"`+thief.ns+`"}}}`), metav1.PatchOptions{})
	e.must(err, "allow the namespace")
	await(thief, claims, "data", "bound", bound)
	thief.remove(claims, "data")
	thief.awaitFreed(v)
}
