package sanity

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"google.golang.org/grpc"
)

// suiteEnv hands a suite to the process that runs it: Ginkgo runs one suite in
// a process, and there are many to run.
const suiteEnv = "PLINTH_SANITY_SUITE"

// countsMark begins the line in which that process says how the suite went.
const countsMark = "csi-sanity counts: "

// Suite is one run of csi-sanity.
type Suite struct {
	Address    string // of the CSI socket
	Controller string // of the socket of the controller service, if it is another
	AccessType string // mount or block
	Size       int64  // of the volumes, in bytes
	ExpandTo   int64
	Parameters map[string]string // of the StorageClass
	Mutable    map[string]string // of the VolumeAttributesClass
	Topology   map[string]string // of the node, for volumes that csi-sanity would have anywhere
	Lacks      string            // a regular expression of the tests of what the driver cannot do
	Dir        string            // for staging and target paths, where the suite runs; it exists

	// Program is this test binary where the suite runs, and Enter the command
	// that gets there. Without them it runs here.
	Program string   `json:"-"`
	Enter   []string `json:"-"`
}

// Counts is how a suite went.
type Counts struct {
	Passed, Failed, Skipped int
	NotAllowed              []string // what was skipped and is not on the list of allowed skips
	// What the sockets announce.
	Controller, Node Capabilities
}

func (c Counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
}

// Host runs the suite that Run started this process for, and ends the process;
// without one it returns. It begins the TestMain of whoever calls Run.
func Host() {
	data := os.Getenv(suiteEnv)
	if data == "" {
		return
	}
	flag.Parse() // Ginkgo's
	var s Suite
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cfg := sanity.NewTestConfig()
	cfg.Address, cfg.ControllerAddress = s.Address, s.Controller
	cfg.StagingPath, cfg.TargetPath = s.Dir+"/staging", s.Dir+"/target"
	cfg.TestVolumeAccessType = s.AccessType
	cfg.TestVolumeSize, cfg.TestVolumeExpandSize = s.Size, s.ExpandTo
	cfg.TestVolumeParameters, cfg.TestVolumeMutableParameters = s.Parameters, s.Mutable
	cfg.ControllerDialOptions = append(cfg.ControllerDialOptions, grpc.WithUnaryInterceptor(s.place))
	ginkgo.ReportAfterSuite("counts", func(r ginkgo.Report) {
		c := s.count(r)
		var err, nodeErr error
		c.Controller, err = announced(cmp.Or(s.Controller, s.Address))
		c.Node, nodeErr = announced(s.Address)
		out, jsonErr := json.Marshal(c)
		if err := errors.Join(err, nodeErr, jsonErr); err != nil {
			ginkgo.Fail(err.Error())
		}
		fmt.Fprintf(os.Stdout, "\n%s%s\n", countsMark, out)
	})
	var v verdict
	sanity.Test(&v, cfg)
	if v {
		os.Exit(1)
	}
	os.Exit(0)
}

// verdict is true once the suite has failed. It is Ginkgo's GinkgoTestingT.
type verdict bool

func (v *verdict) Fail() { *v = true }

// place asks for a volume on the node, as a provisioner does for a claim whose
// node is selected: csi-sanity knows of one node only.
func (s Suite) place(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if create, ok := req.(*csi.CreateVolumeRequest); ok && len(s.Topology) > 0 && create.GetAccessibilityRequirements() == nil {
		create.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: s.Topology}}}
	}
	return call(ctx, method, req, reply, conn, opts...)
}

func (s Suite) count(r ginkgo.Report) Counts {
	var c Counts
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
	return c
}

// Run runs a suite in a process of its own and returns how it went. A suite
// that failed or passed nothing fails the test, with its output.
func Run(t *testing.T, s Suite) Counts {
	t.Helper()
	if s.Program == "" {
		s.Program = os.Args[0]
	}
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	argv := slices.Concat(s.Enter, []string{s.Program, "-ginkgo.no-color", "-ginkgo.seed=1"})
	if s.Lacks != "" {
		argv = append(argv, "-ginkgo.skip="+s.Lacks)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), suiteEnv+"="+string(data))
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run()
	var c Counts
	_, line, _ := strings.Cut(out.String(), countsMark)
	line, _, _ = strings.Cut(line, "\n")
	err = json.Unmarshal([]byte(line), &c)
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
