//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

func trashed(v *v1alpha1.PlinthVolume) error {
	if v.Status.Phase != v1alpha1.VolumeTrashed || v.Spec.TrashedUntil == nil {
		return fmt.Errorf("phase %s, until %v", v.Status.Phase, v.Spec.TrashedUntil)
	}
	return nil
}

// TestTrash: a deleted claim's volume waits in the trash with its data and its
// promise of bytes. From there a new claim takes it, it can be undeleted, and
// when its time is over it is freed.
func TestTrash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ volumeType, backend string }{{"csi", "btrfs"}, {"local", "image"}, {"hostPath", "btrfs"}} {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool(c.backend), "volumeType": c.volumeType, "onDelete": "trash", "trashKeep": "7d"}
			class := e.class(p, waiting, func(*storagev1.StorageClass) {})
			e.claim("first", class, "32Mi")
			e.pod("first", "first")
			await(e, pods, "first", "ready", ready)
			e.mustSh("first", "echo kept > /data/file && sync")
			v := e.volumeOf("first")
			e.remove(pods, "first")
			e.remove(claims, "first")
			e.awaitGone(volumes, v.Name)
			was := await(e, plinthVols, v.Name, "in the trash", trashed)
			if left := time.Until(was.Spec.TrashedUntil.Time); left < 6*24*time.Hour || left > 8*24*time.Hour {
				t.Errorf("it is kept for %v", left)
			}
			e.hasBytes(v)

			e.claim("second", class, "32Mi", adopting(v.Name))
			e.pod("second", "second")
			await(e, pods, "second", "ready", ready)
			e.refuses([]string{"undelete", v.Name}, "not in the trash", "--phase Trashed")
			if got := e.mustSh("second", "cat /data/file"); got != "kept" {
				t.Errorf("taken out of the trash with %q", got)
			}
			await(e, plinthVols, v.Name, "ready again", func(v *v1alpha1.PlinthVolume) error {
				if v.Status.Phase != v1alpha1.VolumeReady || v.Spec.TrashedUntil != nil {
					return fmt.Errorf("phase %s, until %v", v.Status.Phase, v.Spec.TrashedUntil)
				}
				return nil
			})
			e.remove(pods, "second")
			e.remove(claims, "second")
			await(e, plinthVols, v.Name, "in the trash again", trashed)

			undelete := []string{"undelete", v.Name}
			e.prints([]string{"list", "--phase", "Trashed"}, v.Name)
			e.prints(undelete, "kubectl plinth adopt "+v.Name)
			await(e, plinthVols, v.Name, "undeleted", retained)
			e.prints(undelete, "not in the trash")
			_, err := e.of(plinthVols).Patch(e.ctx, v.Name, mergePatch, []byte(`{"spec":{"retained":false,"trashedUntil":"2030-01-01T00:00:00Z"}}`), metav1.PatchOptions{})
			if err == nil {
				t.Error("a volume can be in the trash and in use")
			}
			now := time.Now().UTC().Format(time.RFC3339)
			_, err = e.of(plinthVols).Patch(e.ctx, v.Name, mergePatch, []byte(`{"spec":{"trashedUntil":"`+now+`"}}`), metav1.PatchOptions{})
			e.must(err, "put "+v.Name+" into the trash until now")
			e.awaitGone(plinthVols, v.Name)
			e.awaitFreed(v)
		})
	}
}

// TestTrashExpires: what nobody takes out of the trash is freed when its time
// is over, without anybody's doing.
func TestTrashExpires(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.claim("data", e.class(params{"pool": e.pool("btrfs"), "onDelete": "trash", "trashKeep": "5s"}), "32Mi")
	v := e.volumeOf("data")
	e.remove(claims, "data")
	await(e, plinthVols, v.Name, "in the trash", trashed)
	e.awaitFreed(v)
}
