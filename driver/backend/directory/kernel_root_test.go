//go:build root

package directory

import (
	"bufio"
	"compress/gzip"
	"os"
	"strings"
	"testing"
)

// needProjectQuota skips unless the kernel says that it was built with project
// quotas, or does not say how it was built.
func needProjectQuota(t *testing.T) {
	t.Helper()
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{"CONFIG_XFS_QUOTA": true, "CONFIG_QFMT_V2": true, "CONFIG_QUOTA": true}
	for lines := bufio.NewScanner(z); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if value == "y" || value == "m" {
			delete(missing, name)
		}
	}
	for option := range missing {
		t.Skipf("this kernel is built without %s; project quotas are tested in a virtual machine (test/vm)", option)
	}
}
