//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/test/sanity"
)

// TestSanity runs csi-sanity against the sockets that the sidecars and the
// kubelet use: that of the controller, in a volume of its pod, and that of the
// agent on the same node. csi-sanity itself runs on that node, where it sees
// both, and what is mounted. Alone: it counts all volumes there are.
func TestSanity(t *testing.T) {
	e := newEnv(t)
	node, where := e.besideController()
	conditions, tables := announcements(e)
	for _, c := range []struct{ backend, access, fsType string }{
		{"btrfs", "mount", ""},
		{"image", "mount", "xfs"}, // ext4 grows in use only for who has CAP_SYS_RESOURCE
		{"image", "block", ""},
	} {
		t.Run(c.backend+"/"+c.access, func(t *testing.T) {
			before := e.made()
			s := where
			s.AccessType, s.Size, s.ExpandTo = c.access, 320<<20, 448<<20
			s.Parameters = params{"pool": e.pool(c.backend)}
			if c.fsType != "" {
				s.Parameters["csi.storage.k8s.io/fstype"] = c.fsType
			}
			s.Lacks = sanity.Lacking(conditions["the controller's"])
			if c.backend != "image" {
				s.Lacks = strings.Join([]string{s.Lacks, sanity.NoGroups}, "|")
			}
			// The staging and target paths are where the agent's mounts reach the node.
			s.Dir = e.mustOnNode(node, "mktemp", "-d", "/var/lib/kubelet/plugins/"+driverName+"/sanity-XXXXXX")
			n := sanity.Run(t, s)
			t.Logf("csi-sanity in the cluster, %s, %s: %s", c.backend, c.access, n)
			for socket, announced := range map[string]sanity.Capabilities{"the controller's": n.Controller, "the node's": n.Node} {
				documented := documentedOf(tables, conditions[socket], socket == "the node's")
				if !maps.EqualFunc(announced, documented, slices.Equal) {
					t.Errorf("%s socket announces\n%q, docs/csi.md has\n%q", socket, announced, documented)
				}
			}
			if !slices.Equal(n.Controller["Plugin"], n.Node["Plugin"]) {
				t.Errorf("of the plugin the controller announces %q, the node %q", n.Controller["Plugin"], n.Node["Plugin"])
			}
			if after := e.made(); !slices.Equal(before, after) {
				t.Errorf("there were %q, and now there are %q", before, after)
			}
			e.mustOnNode(node, "rmdir", s.Dir) // empty, and nothing is mounted below
		})
	}
}

// besideController prepares the node that the controller is on for csi-sanity,
// and returns its name and how the suite runs there.
func (e *env) besideController() (string, sanity.Suite) {
	e.Helper()
	pod := e.plinthPods("controller")[0]
	node := pod.Spec.NodeName
	self, err := os.Open(os.Args[0])
	e.must(err, "open this program")
	defer self.Close()
	dir := e.mustOnNode(node, "mktemp", "-d", "/run/sanity-XXXXXX")
	e.Cleanup(func() { e.mustOnNode(node, "rm", "-r", dir) })
	s := sanity.Suite{
		Program:    dir + "/e2e.test",
		Enter:      []string{e.binary, "exec", node, "--"},
		Address:    "unix:///var/lib/kubelet/plugins/" + driverName + "/csi.sock",
		Controller: "unix://" + dir + "/controller/csi.sock",
		Topology:   map[string]string{driverName + "/node": node},
	}
	copied := exec.Command(e.binary, "exec", node, "--", "sh", "-c", `cat >"$0" && chmod 700 "$0"`, s.Program)
	copied.Stdin = self
	out, err := copied.CombinedOutput()
	e.must(err, "copy this program to the node: "+string(out))
	// The way to the socket in the pod's volume is too long for an address (unix(7)).
	e.mustOnNode(node, "ln", "-s", fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~empty-dir/socket", pod.UID), dir+"/controller")
	return node, s
}

// made names all volumes and snapshots in the ledger.
func (e *env) made() []string {
	e.Helper()
	var names []string
	for _, v := range list[v1alpha1.PlinthVolume](e, plinthVols) {
		names = append(names, "volume "+v.Name)
	}
	for _, s := range list[v1alpha1.PlinthSnapshot](e, plinthSnaps) {
		names = append(names, "snapshot "+s.Name)
	}
	slices.Sort(names)
	return names
}

// capability is a row of a table of capabilities in docs/csi.md.
type capability struct{ service, name, when string }

// announcements reads docs/csi.md: which conditions of the tables of
// capabilities hold for each socket in a cluster, and the tables.
func announcements(e *env) (conditions map[string][]string, tables []capability) {
	e.Helper()
	doc, err := os.ReadFile("../../docs/csi.md")
	e.must(err, "read what is announced")
	heading := regexp.MustCompile(`^\*\*(\w+)\*\* \(`)
	row := regexp.MustCompile("^\\| `([A-Za-z_.]+)` \\| ([^|]+) \\|")
	socket := regexp.MustCompile(`^\| (the \w+'s) socket \| ([^|]+) \|`)
	conditions = map[string][]string{}
	service := ""
	for line := range bytes.Lines(doc) {
		if m := heading.FindSubmatch(line); m != nil {
			service = string(m[1])
		} else if bytes.HasPrefix(line, []byte("## ")) {
			service = ""
		} else if m := socket.FindSubmatch(line); m != nil {
			conditions[string(m[1])] = strings.Split(string(m[2]), ", ")
		} else if m := row.FindSubmatch(line); m != nil && service != "" {
			tables = append(tables, capability{service, string(m[1]), string(m[2])})
		}
	}
	if len(conditions) != 2 || len(tables) == 0 {
		e.Fatalf("docs/csi.md does not say what is announced in a cluster: %v, %v", conditions, tables)
	}
	return conditions, tables
}

// documentedOf are the capabilities under any of the conditions, of the
// services that a node has or those that the controller has.
func documentedOf(tables []capability, conditions []string, node bool) sanity.Capabilities {
	out := sanity.Capabilities{}
	for _, c := range tables {
		if (c.service == "Plugin" || (c.service == "Node") == node) && slices.Contains(conditions, c.when) {
			out[c.service] = append(out[c.service], c.name)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}
