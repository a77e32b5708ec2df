//go:build e2e

package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// TestSharedOnOneNode: two pods of one node have a ReadWriteOnce claim at the
// same time, one of them only a part of it and that read-only, with what the
// class says of mounting.
func TestSharedOnOneNode(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			noatime := func(s *storagev1.StorageClass) {
				if c.volumeType != "hostPath" { // which takes no mount options
					s.MountOptions = []string{"noatime"}
				}
			}
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}, noatime), "32Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "mkdir /data/part && echo here > /data/part/file")
			e.pod("reader", "data", func(p *corev1.Pod) {
				p.Spec.Containers[0].VolumeMounts[0].SubPath = "part"
				p.Spec.Containers[0].VolumeMounts[0].ReadOnly = true
			})
			await(e, pods, "reader", "ready", ready)
			if got := e.mustSh("reader", "cat /data/file"); got != "here" {
				t.Errorf("the reader finds %q", got)
			}
			if _, err := e.sh("reader", "echo mine > /data/file"); err == nil || !strings.Contains(err.Error(), "Read-only") {
				t.Errorf("the reader wrote: %v", err)
			}
			options := e.mustSh("writer", "grep ' /data ' /proc/mounts")
			if c.volumeType != "hostPath" && !strings.Contains(options, "noatime") {
				t.Errorf("the class says noatime and the volume is mounted as %s", options)
			}
			e.remove(pods, "writer")
			e.awaitGone(pods, "writer")
			if got := e.mustSh("reader", "cat /data/file"); got != "here" {
				t.Errorf("without the writer, the reader finds %q", got)
			}
		})
	}
}

// TestFilesystems: the class chooses the filesystem of an image, and a pod
// sees one of about the size of its claim.
func TestFilesystems(t *testing.T) {
	t.Parallel()
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool("image"), "csi.storage.k8s.io/fstype": fsType}), "320Mi")
			e.pod("pod", "data")
			await(e, pods, "pod", "ready", ready)
			if got := strings.Fields(e.mustSh("pod", "grep ' /data ' /proc/mounts"))[2]; got != fsType {
				t.Errorf("the filesystem is %s", got)
			}
			if got := e.mustSh("pod", `df -m /data | awk 'NR == 2 && $2 > 230 && $2 <= 320 {print "fits"}'`); got != "fits" {
				t.Errorf("a claim of 320 MiB is\n%s", e.mustSh("pod", "df -m /data"))
			}
		})
	}
}
