//go:build e2e

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// theProgram builds cmd/kubectl-plinth once for all tests, as make build does.
var theProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kubectl-plinth")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubectl-plinth")
	build := exec.Command("go", "build", "-C", filepath.Join("..", ".."), "-tags", "grpcnotrace", "-o", path, "./cmd/kubectl-plinth")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building kubectl-plinth: %w\n%s", err, out)
	}
	return path, nil
})

// plinth runs kubectl plinth against the cluster and returns what it prints.
func (e *env) plinth(args ...string) (string, error) {
	e.Helper()
	path, err := theProgram()
	e.must(err, "build the plugin")
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cmp.Or(os.Getenv("KUBECONFIG"), defaultKubeconfig))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl plinth %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// prints runs the plugin, which has to succeed and say all of the words.
func (e *env) prints(args []string, words ...string) string {
	e.Helper()
	out, err := e.plinth(args...)
	e.must(err, "run the plugin")
	if err := says(out, words); err != nil {
		e.Errorf("kubectl plinth %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// refuses runs the plugin, which has to fail and say all of the words.
func (e *env) refuses(args []string, words ...string) {
	e.Helper()
	out, err := e.plinth(args...)
	if err == nil {
		e.Fatalf("kubectl plinth %s: %s", strings.Join(args, " "), out)
	}
	if err := says(err.Error(), words); err != nil {
		e.Errorf("kubectl plinth %s: %v", strings.Join(args, " "), err)
	}
}

// TestPlugin: kubectl plinth shows what there is, and hands a retained volume
// on to a new claim, of another namespace only when that is said.
func TestPlugin(t *testing.T) {
	t.Parallel()
	e, other := newEnv(t), newEnv(t)
	pool := e.pool("btrfs")
	e.claim("data", e.class(params{"pool": pool}, retaining), "32Mi")
	v := e.volumeOf("data")

	e.prints([]string{"list"}, v.Name, "Ready", v.Spec.NodeName, pool, "32Mi", e.ns+"/data", v.pv.Name)
	if out := e.prints([]string{"volumes", "-n", other.ns}); strings.Contains(out, v.Name) {
		t.Errorf("in another namespace's list:\n%s", out)
	}
	var l v1alpha1.PlinthVolumeList
	e.must(json.Unmarshal([]byte(e.prints([]string{"list", "-n", e.ns, "-o", "json"})), &l), "read JSON")
	if len(l.Items) != 1 || l.Items[0].UID != v.UID {
		t.Errorf("%d volumes of namespace %s", len(l.Items), e.ns)
	}
	e.prints([]string{"nodes"}, e.nodeNames()...)
	e.prints([]string{"pools", "--node", v.Spec.NodeName}, v.Spec.NodeName, pool, "btrfs", "Ready")
	e.prints([]string{"snapshots", "-o", "yaml"}, "kind: List")

	adopt := []string{"adopt", v.Name, "--claim", e.ns + "/again"}
	e.refuses(adopt, v.pv.Name, "Retain")
	e.remove(claims, "data")
	e.awaitGone(claims, "data")
	e.remove(volumes, v.pv.Name)
	await(e, plinthVols, v.Name, "retained", retained)

	e.prints([]string{"list", "--phase", "Retained"}, v.Name)
	foreign := []string{"adopt", v.Name, "--claim", other.ns + "/theirs"}
	e.refuses(foreign, "--allow-namespace", e.ns)
	e.refuses([]string{"adopt", "nosuch", "--claim", e.ns + "/x"}, "kubectl plinth list")
	e.refuses([]string{"list", "-o", "wide"}, "json or yaml")
	e.refuses([]string{"list", "--context", "nosuch"}, "nosuch")
	e.prints(append(adopt, "--dry-run"), "plinth.dev/adopt: "+v.Name, "kind: PersistentVolumeClaim")
	e.prints(append(adopt, "--size", "16Mi"), "created")
	e.prints(adopt, "already")
	await(e, claims, "again", "bound", bound)
	await(e, plinthVols, v.Name, "its new claim's", func(v *v1alpha1.PlinthVolume) error {
		if v.Spec.ClaimName != "again" || v.Spec.Retained {
			return fmt.Errorf("claim %s", v.Spec.ClaimName)
		}
		return nil
	})

	pv := await(e, claims, "again", "bound", bound).Spec.VolumeName
	e.remove(claims, "again")
	e.awaitGone(claims, "again")
	e.remove(volumes, pv)
	await(e, plinthVols, v.Name, "retained again", retained)
	e.prints(append(foreign, "--allow-namespace", "--class", other.class(params{"pool": pool})), "created")
	await(other, claims, "theirs", "bound", bound)
	other.remove(claims, "theirs")
	other.awaitFreed(v)
}
