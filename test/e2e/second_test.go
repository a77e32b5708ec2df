//go:build e2e

package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// Two drivers in one cluster would share the objects of plinth.dev, and take
// each other's volumes for their own.
func TestSecondInstallRefused(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("helm", "install", "second", "../../charts/plinth", "--namespace", "default",
		"--dry-run=server", "--set", "driverName=other.plinth.dev").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"csi.plinth.dev" already (release plinth)`) {
		t.Errorf("helm install of a second driver: %v\n%s", err, out)
	}
}
