package driver

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// TestDocumentedCapabilities compares docs/csi.md with what a driver that has
// everything announces.
func TestDocumentedCapabilities(t *testing.T) {
	data, err := os.ReadFile("../docs/csi.md")
	if err != nil {
		t.Fatal(err)
	}
	engine := &fakeEngine{}
	snapshots := &fakeSnapshots{}
	dir, _ := start(t, func(_ string, c *Config) {
		c.Snapshots, c.Groups, c.Modifier, c.Health = snapshots, snapshots, engine, engine
		c.Log = slog.New(slog.DiscardHandler)
	})
	conn := dial(t, filepath.Join(dir, "csi.sock"))
	announced := map[string][]string{}
	plugin, err := csi.NewIdentityClient(conn).GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plugin.GetCapabilities() {
		name := "VolumeExpansion." + c.GetVolumeExpansion().GetType().String()
		if c.GetService() != nil {
			name = c.GetService().GetType().String()
		}
		announced["Plugin"] = append(announced["Plugin"], name)
	}
	controller, err := csi.NewControllerClient(conn).ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range controller.GetCapabilities() {
		announced["Controller"] = append(announced["Controller"], c.GetRpc().GetType().String())
	}
	group, err := csi.NewGroupControllerClient(conn).GroupControllerGetCapabilities(t.Context(), &csi.GroupControllerGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range group.GetCapabilities() {
		announced["GroupController"] = append(announced["GroupController"], c.GetRpc().GetType().String())
	}
	node, err := csi.NewNodeClient(conn).NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range node.GetCapabilities() {
		announced["Node"] = append(announced["Node"], c.GetRpc().GetType().String())
	}
	documented := documentedCapabilities(string(data))
	for service, names := range announced {
		slices.Sort(names)
		slices.Sort(documented[service])
		if !slices.Equal(names, documented[service]) {
			t.Errorf("%s announces\n%q, docs/csi.md has\n%q", service, names, documented[service])
		}
	}
	if len(documented) != len(announced) {
		t.Errorf("docs/csi.md has %d lists, the driver %d", len(documented), len(announced))
	}
}

// documentedCapabilities are the first column of the tables of capabilities,
// by the service in whose paragraph they are. Each names a test.
func documentedCapabilities(doc string) map[string][]string {
	heading, row := regexp.MustCompile(`^\*\*(\w+)\*\* \(`), regexp.MustCompile("^\\| `([A-Za-z_.]+)` \\|[^|]+\\| [^|]*(csi-sanity|`Test)[^|]*\\|$")
	out := map[string][]string{}
	service := ""
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			service = m[1]
		} else if strings.HasPrefix(line, "## ") {
			service = ""
		} else if m := row.FindStringSubmatch(line); m != nil && service != "" {
			out[service] = append(out[service], m[1])
		}
	}
	return out
}

// TestAnnouncesTheWhole: what is asked of the plugin as a whole has one answer
// whichever of its instances is asked.
func TestAnnouncesTheWhole(t *testing.T) {
	ask := func(change func(c *Config)) string {
		dir, _ := start(t, func(_ string, c *Config) { change(c) })
		r, err := csi.NewIdentityClient(dial(t, filepath.Join(dir, "csi.sock"))).GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.String()
	}
	controller := ask(func(c *Config) { c.Mounter, c.RegistrationDir = nil, "" })
	node := ask(func(c *Config) { c.Volumes, c.ControllerElsewhere = nil, true })
	if controller != node || !strings.Contains(controller, "CONTROLLER_SERVICE") {
		t.Errorf("the controller announces %s, the node %s", controller, node)
	}
	if alone := ask(func(c *Config) { c.Volumes = nil }); strings.Contains(alone, "CONTROLLER_SERVICE") {
		t.Errorf("without a controller: %s", alone)
	}
}

// TestAnnouncesLess: what is not set is not announced, and is Unimplemented.
func TestAnnouncesLess(t *testing.T) {
	dir, _ := start(t, func(string, *Config) {})
	conn := dial(t, filepath.Join(dir, "csi.sock"))
	controller, err := csi.NewControllerClient(conn).ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	if err != nil || len(controller.GetCapabilities()) != 6 {
		t.Errorf("controller: %v, %v", controller, err)
	}
	node, err := csi.NewNodeClient(conn).NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil || len(node.GetCapabilities()) != 4 {
		t.Errorf("node: %v, %v", node, err)
	}
}

func TestGetVolume(t *testing.T) {
	s, _, _ := snapServer()
	for handle, want := range map[string]string{"vol": "OK", "My/Disk": "OK", "other": "NotFound", "../vol": "NotFound", "": "InvalidArgument"} {
		resp, err := s.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: handle})
		if err == nil && (want != "OK" || resp.GetVolume().GetCapacityBytes() == 0 || resp.GetStatus() == nil) || err != nil && code(err).String() != want {
			t.Errorf("%q: %v, %v", handle, resp, err)
		}
	}
}
