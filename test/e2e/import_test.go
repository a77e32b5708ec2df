//go:build e2e

package e2e

import (
	"fmt"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// plainVolume is a PersistentVolume as local-path-provisioner makes them, for
// the claim data-db-0.
const plainVolume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 32Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: %[2]s, name: data-db-0}
  hostPath: {path: %[3]s, type: DirectoryOrCreate}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[4]s]}]}]}
`

// importedVolume is what an administrator writes to import a directory.
const importedVolume = `
apiVersion: plinth.dev/v1alpha1
kind: PlinthVolume
metadata: {name: %[1]s}
spec:
  nodeName: %[2]s
  pool: %[3]s
  importFrom: %[4]s
  size: 32Mi
  volumeMode: Filesystem
  volumeType: %[5]s
  retained: true
  claimNamespace: %[6]s
`

// directoryPool finds a node-local pool of directories.
func (e *env) directoryPool() string {
	e.Helper()
	return e.poolWhere("node-local pool of directories", func(p v1alpha1.PoolStatus) bool { return p.Backend == "directory" && !p.Shared })
}

// TestImport: a directory of another provisioner becomes a volume in place, a
// claim of its old name gets it, and it becomes a directory again.
func TestImport(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "hostPath"} {
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			node, pool := e.nodeNames()[0], e.directoryPool()
			const claim = "data-db-0"
			parent := "local-path-" + e.ns
			from := path.Join(parent, "pvc-1_"+e.ns+"_"+claim)
			at := path.Join(e.poolOn(node, pool).Path, from)
			t.Cleanup(func() {
				if out, err := e.onNode(node, "rm", "-rf", path.Dir(at)); err != nil {
					t.Error(out, err)
				}
			})

			plain := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "plain-" + e.ns }
			e.apply(fmt.Sprintf(plainVolume, "plain-"+e.ns, e.ns, at, node))
			e.claim(claim, "", "32Mi", plain)
			e.pod("before", claim)
			await(e, pods, "before", "ready", ready)
			e.mustSh("before", "echo theirs > /data/file && sync")
			name := "imported-" + e.ns
			importing := []string{"import", name, "--node", node, "--pool", pool, "--from", from, "--size", "32Mi", "--type", volumeType, "-n", e.ns}
			e.refuses(importing, "plain-"+e.ns, "Retain")
			e.leave("before", claim, "plain-"+e.ns)

			e.Cleanup(func() { e.remove(plinthVols, name) })
			e.prints(importing, at, "kubectl plinth adopt "+name)
			await(e, plinthVols, name, "retained", retained)
			if got := e.mustOnNode(node, "sh", "-c", "test -L "+at+" && cat "+at+"/file"); got != "theirs" {
				t.Errorf("by its old path it has %q", got)
			}
			keep := e.class(params{"pool": pool, "volumeType": volumeType}, waiting, retaining)
			e.claim(claim, keep, "32Mi", adopting(name))
			e.pod("db-0", claim)
			await(e, pods, "db-0", "ready", ready)
			e.refuses([]string{"release", name, "--to", from}, "PersistentVolume")
			if got := e.mustSh("db-0", "cat /data/file && echo ours > /data/file && sync"); got != "theirs" {
				t.Errorf("imported, it has %q", got)
			}
			pv := await(e, claims, claim, "bound", bound).Spec.VolumeName
			e.leave("db-0", claim, pv)
			await(e, plinthVols, name, "retained again", retained)

			releasing := []string{"release", name, "--to", from}
			e.prints(releasing, at, "kubectl delete plinthvolume "+name)
			e.prints(releasing, at)
			await(e, plinthVols, name, "released", func(v *v1alpha1.PlinthVolume) error {
				if v.Status.Phase != v1alpha1.VolumeReleased || v.Status.Path != at {
					return fmt.Errorf("phase %s, path %s: %s", v.Status.Phase, v.Status.Path, v.Status.Message)
				}
				return nil
			})
			e.remove(plinthVols, name)
			e.awaitGone(plinthVols, name)
			e.mustOnNode(node, "sh", "-c", "test -d "+at+" && ! test -L "+at)
			e.apply(fmt.Sprintf(plainVolume, "plain-"+e.ns, e.ns, at, node))
			e.claim(claim, "", "32Mi", plain)
			e.pod("after", claim)
			await(e, pods, "after", "ready", ready)
			if got := e.mustSh("after", "cat /data/file"); got != "ours" {
				t.Errorf("released, it has %q", got)
			}
			e.leave("after", claim, "plain-"+e.ns)
		})
	}
}

// leave removes a pod, its claim and the PersistentVolume, whose data stays.
func (e *env) leave(pod, claim, pv string) {
	e.Helper()
	e.remove(pods, pod)
	e.awaitGone(pods, pod)
	e.remove(claims, claim)
	e.awaitGone(claims, claim)
	e.remove(volumes, pv)
	e.awaitGone(volumes, pv)
}

// TestReleaseWaits: what is in the way of a release is named, and waited for.
func TestReleaseWaits(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	node, pool := e.nodeNames()[0], e.directoryPool()
	to := path.Join("released-"+e.ns, "data")
	at := path.Join(e.poolOn(node, pool).Path, to)
	t.Cleanup(func() { e.mustOnNode(node, "rm", "-rf", path.Dir(at)) })
	e.claim("data", e.class(params{"pool": pool}, retaining, madeOn(node)), "32Mi")
	v := e.volumeOf("data")
	e.remove(claims, "data")
	e.awaitGone(claims, "data")
	e.remove(volumes, v.pv.Name)
	await(e, plinthVols, v.Name, "retained", retained)
	e.Cleanup(func() { e.remove(plinthVols, v.Name) })

	e.refuses([]string{"release", v.Name, "--to", "volumes/" + v.Name + "-2"}, "Plinth's own")
	e.prints([]string{"release", v.Name, "--to", at}, at)
	waits := func(word string) {
		e.Helper()
		await(e, plinthVols, v.Name, "waiting", func(v *v1alpha1.PlinthVolume) error {
			if !strings.Contains(v.Status.Message, word) {
				return fmt.Errorf("phase %s: %q", v.Status.Phase, v.Status.Message)
			}
			return nil
		})
	}
	waits("the directory above is not there")
	e.mustOnNode(node, "mkdir", "-p", at)
	waits("something is there")
	e.mustOnNode(node, "rmdir", at)
	await(e, plinthVols, v.Name, "released", func(v *v1alpha1.PlinthVolume) error {
		if v.Status.Phase != v1alpha1.VolumeReleased || v.Status.Path != at {
			return fmt.Errorf("phase %s, path %s: %s", v.Status.Phase, v.Status.Path, v.Status.Message)
		}
		return nil
	})
}

// TestImportRefused: what cannot be imported says why, and goes with its object.
func TestImportRefused(t *testing.T) {
	t.Parallel()
	for from, words := range map[string][]string{
		"volumes/some": {"Plinth's own"},
		"nosuch":       {"nosuch"},
	} {
		t.Run(strings.ReplaceAll(from, "/", "|"), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			name := "imported-" + e.ns
			e.apply(fmt.Sprintf(importedVolume, name, e.nodeNames()[0], e.directoryPool(), from, "csi", e.ns))
			await(e, plinthVols, name, "refused", func(v *v1alpha1.PlinthVolume) error {
				if v.Status.Phase != v1alpha1.VolumeFailed {
					return fmt.Errorf("phase %s", v.Status.Phase)
				}
				for _, w := range words {
					if !strings.Contains(v.Status.Message, w) {
						return fmt.Errorf("message %q", v.Status.Message)
					}
				}
				return nil
			})
			e.remove(plinthVols, name)
			e.awaitGone(plinthVols, name)
		})
	}
	e := newEnv(t)
	manifest := func(from string) string {
		return fmt.Sprintf(importedVolume, "bad-"+e.ns, "n", "p", from, "csi", e.ns)
	}
	for what, text := range map[string]string{
		"a path that climbs":      manifest("../etc"),
		"an absolute path":        manifest("/etc"),
		"a hidden directory":      manifest(".plinth/volumes"),
		"a Block volume":          strings.Replace(manifest("x"), "Filesystem", "Block", 1),
		"a release into Plinth's": manifest("x") + "  releaseTo: volumes/y\n",
		"a release of one in use": strings.Replace(manifest("x"), "retained: true", "releaseTo: y", 1),
	} {
		u := &unstructured.Unstructured{}
		e.must(yaml.Unmarshal([]byte(text), &u.Object), "read a manifest")
		if _, err := e.of(plinthVols).Create(e.ctx, u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
