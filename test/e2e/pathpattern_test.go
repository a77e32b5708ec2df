//go:build e2e

package e2e

import (
	"fmt"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestPathPattern: a volume is to be found at the path that its class's pattern
// gives, by pods, by its PersistentVolume and on its node; while it is there
// nobody else gets that path, and nothing is left of it when it is gone.
func TestPathPattern(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		if c.volumeType == "csi" {
			continue
		}
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool(c.backend), "volumeType": c.volumeType, "pathPattern": "{namespace}/{claim}"}
			keep := e.class(p, waiting, retaining)
			e.claim("data", keep, "32Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			e.mustSh("writer", "echo here > /data/file && sync")
			v := e.volumeOf("data")
			want := path.Join(v.pool.Path, "paths", e.ns, "data")
			if v.Spec.Path != e.ns+"/data" || v.Status.Path != want || pathOf(v.pv) != want {
				t.Fatalf("spec %q, status %q, PersistentVolume %q; want %s", v.Spec.Path, v.Status.Path, pathOf(v.pv), want)
			}
			if got := e.mustOnNode(v.Spec.NodeName, "cat", path.Join(want, "file")); got != "here" {
				t.Errorf("at %s on the node is %q", want, got)
			}

			// The volume stays when its claim goes, and its path is still its.
			e.remove(pods, "writer")
			e.remove(claims, "data")
			e.awaitGone(claims, "data")
			e.remove(volumes, v.Name)
			await(e, plinthVols, v.Name, "retained", retained)
			e.claim("data", e.class(p, madeOn(v.Spec.NodeName)), "32Mi")
			t.Log(e.awaitEvent(claims, "data", "ProvisioningFailed", v.Name, e.ns+"/data", "pathPattern"))
			if got := get[corev1.PersistentVolumeClaim](e, claims, "data").Status.Phase; got != corev1.ClaimPending {
				t.Errorf("the claim is %s", got)
			}
			// Once it is gone the claim that waits gets the path, empty.
			e.remove(plinthVols, v.Name)
			e.awaitFreed(v)
			e.pod("reader", "data")
			await(e, pods, "reader", "ready", ready)
			if got := e.mustSh("reader", "ls -A /data | grep -v lost+found; true"); got != "" {
				t.Errorf("the new volume has %q", got)
			}
			again := e.volumeOf("data")
			if again.Status.Path != want {
				t.Errorf("the new volume is at %s", again.Status.Path)
			}
			e.remove(pods, "reader")
			e.remove(claims, "data")
			e.awaitFreed(again)
			if left, err := e.onNode(v.Spec.NodeName, "ls", "-d", path.Dir(want)); err == nil {
				t.Errorf("left on the node: %s", left)
			}
		})
	}
}

// TestPathPatternAdopted: a volume keeps its path when another claim adopts it.
func TestPathPatternAdopted(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	p := params{"pool": e.pool("btrfs"), "volumeType": "local", "pathPattern": "{namespace}-{claim}"}
	e.claim("first", e.class(p, retaining), "32Mi")
	v := e.volumeOf("first")
	e.remove(claims, "first")
	e.awaitGone(claims, "first")
	e.remove(volumes, v.Name)
	await(e, plinthVols, v.Name, "retained", retained)
	e.claim("second", e.class(p), "32Mi", adopting(v.Name))
	c := await(e, claims, "second", "bound", bound)
	if got := pathOf(get[corev1.PersistentVolume](e, volumes, c.Spec.VolumeName)); got != v.Status.Path || !strings.HasSuffix(got, e.ns+"-first") {
		t.Errorf("adopted, it is at %s, was at %s", got, v.Status.Path)
	}
	e.remove(claims, "second")
	e.awaitFreed(v)
}

// TestPathPatternRefused: what could name anything but a place of its own below
// the pool is refused with an event that says why.
func TestPathPatternRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		volumeType, pattern string
		words               []string
	}{
		{"csi", "{claim}", []string{"pathPattern", "local and hostPath"}},
		{"local", "../{claim}", []string{"pathPattern", `the segment ".."`}},
		{"local", "{claim}/../../../../etc", []string{"pathPattern", `the segment ".."`}},
		{"hostPath", "/etc/{claim}", []string{"pathPattern", `the segment ""`}},
		{"hostPath", ".{claim}", []string{"pathPattern", "begins with a letter or a digit"}},
		{"hostPath", "{namespace}", []string{"pathPattern", "{claim}", "{volume}"}},
		{"local", "{{ .PVC.name }}/{claim}", []string{"pathPattern", "brace", "{namespace}"}},
	} {
		t.Run(c.volumeType+" "+strings.ReplaceAll(c.pattern, "/", "|"), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool("btrfs"), "volumeType": c.volumeType, "pathPattern": c.pattern}), "32Mi")
			t.Log(e.awaitEvent(claims, "data", "ProvisioningFailed", c.words...))
			for _, v := range list[v1alpha1.PlinthVolume](e, plinthVols) {
				if v.Spec.ClaimNamespace == e.ns {
					t.Errorf("volume %s was made", v.Name)
				}
			}
		})
	}
}

// pathOf is where a PersistentVolume says that it is on its node.
func pathOf(pv *corev1.PersistentVolume) string {
	switch s := pv.Spec.PersistentVolumeSource; {
	case s.Local != nil:
		return s.Local.Path
	case s.HostPath != nil:
		return s.HostPath.Path
	}
	return fmt.Sprintf("no path: %+v", pv.Spec.PersistentVolumeSource)
}
