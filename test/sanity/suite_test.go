package sanity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// suiteEnv hands a suite to the process that runs it: Ginkgo runs one suite in
// a process, and there are many to run.
const suiteEnv = "PLINTH_SANITY_SUITE"

// suite is one run of csi-sanity.
type suite struct {
	Address    string // of the CSI socket
	AccessType string // mount or block
	Size       int64  // of the volumes, in bytes
	ExpandTo   int64
	Parameters map[string]string // of the StorageClass
	Mutable    map[string]string // of the VolumeAttributesClass
	Lacks      string            // a regular expression of the tests of what the backend cannot do
	Dir        string            // for staging and target paths; it exists
	Counts     string            // the file to write the counts to
}

// counts is how a suite went.
type counts struct {
	Passed, Failed, Skipped int
	NotAllowed              []string // what was skipped and is not on the list of allowed skips
}

// TestSuite is not a test by itself: TestMemory and the tests with the tag
// root start this binary again to run it.
func TestSuite(t *testing.T) {
	data := os.Getenv(suiteEnv)
	if data == "" {
		t.Skip("started by the other tests, with " + suiteEnv)
	}
	var s suite
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		t.Fatal(err)
	}
	cfg := sanity.NewTestConfig()
	cfg.Address = s.Address
	cfg.StagingPath, cfg.TargetPath = filepath.Join(s.Dir, "staging"), filepath.Join(s.Dir, "target")
	cfg.TestVolumeAccessType = s.AccessType
	cfg.TestVolumeSize, cfg.TestVolumeExpandSize = s.Size, s.ExpandTo
	cfg.TestVolumeParameters, cfg.TestVolumeMutableParameters = s.Parameters, s.Mutable
	ginkgo.ReportAfterSuite("counts", func(r ginkgo.Report) {
		c := counts{}
		for _, spec := range r.SpecReports.WithLeafNodeType(types.NodeTypeIt) {
			switch {
			case spec.Failed():
				c.Failed++
			case spec.State == types.SpecStatePassed:
				c.Passed++
			default:
				c.Skipped++
				if !allowed(spec.FullText()) && (s.Lacks == "" || !regexp.MustCompile(s.Lacks).MatchString(spec.FullText())) {
					c.NotAllowed = append(c.NotAllowed, fmt.Sprintf("%s: %s", spec.FullText(), spec.FailureMessage()))
				}
			}
		}
		out, err := json.Marshal(c)
		if err == nil {
			err = os.WriteFile(s.Counts, out, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	sanity.Test(t, cfg)
}

// run runs a suite in a process of its own and returns how it went. A suite
// that failed or passed nothing fails the test, with its output.
func run(t *testing.T, s suite) counts {
	t.Helper()
	s.Dir = t.TempDir()
	s.Counts = filepath.Join(s.Dir, "counts.json")
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSuite$", "-ginkgo.no-color", "-ginkgo.seed=1")
	if s.Lacks != "" {
		cmd.Args = append(cmd.Args, "-ginkgo.skip="+s.Lacks)
	}
	cmd.Env = append(os.Environ(), suiteEnv+"="+string(data))
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run()
	var c counts
	if data, err = os.ReadFile(s.Counts); err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || runErr != nil || c.Failed > 0 || c.Passed == 0 || len(c.NotAllowed) > 0 {
		t.Errorf("csi-sanity: %v, %v, %v\nskipped without a reason on the list: %q\n%s", c, runErr, err, c.NotAllowed, failures(out.String()))
	}
	return c
}

// failures is the part of Ginkgo's output that says what failed.
func failures(out string) string {
	const limit = 20000
	if i := strings.Index(out, "[FAILED]"); i > 0 {
		out = out[max(0, i-2000):]
	}
	return out[:min(len(out), limit)]
}

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
}
