package plan

import (
	"net/netip"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		machine string
		index   int
		bad     bool
	}{
		{machine: "plinth-1", index: 1},
		{machine: "plinth-50", index: 50},
		{machine: "plinth-control", index: 0},
		{machine: "plinth-0", bad: true},
		{machine: "plinth-51", bad: true},
		{machine: "plinth-01", bad: true},
		{machine: "plinth-x", bad: true},
		{machine: "other-1", bad: true},
		{machine: "plinth", bad: true},
	} {
		m, err := Parse("plinth", tc.machine)
		if (err != nil) != tc.bad {
			t.Errorf("Parse(%q): error %v, want an error: %v", tc.machine, err, tc.bad)
			continue
		}
		if !tc.bad && (m.Index != tc.index || m.Name != tc.machine) {
			t.Errorf("Parse(%q) = %+v", tc.machine, m)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		o  Options
		ok bool
	}{
		{Options{Name: "plinth", Nodes: 3}, true},
		{Options{Name: "a", Nodes: 1}, true},
		{Options{Name: "", Nodes: 3}, false},
		{Options{Name: "Up", Nodes: 3}, false},
		{Options{Name: "a/b", Nodes: 3}, false},
		{Options{Name: "end-", Nodes: 3}, false},
		{Options{Name: "plinth", Nodes: 0}, false},
		{Options{Name: "plinth", Nodes: MaxNodes + 1}, false},
		{Options{Name: "plinth", Nodes: 1, KubeAPIQPS: -1}, false},
	} {
		if err := tc.o.Validate(); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.o, err)
		}
	}
}

func TestAddressesAreDistinctAndInside(t *testing.T) {
	nodes, pods := netip.MustParsePrefix(NodeNet), netip.MustParsePrefix(PodNet)
	seen := map[string]bool{ControlIP: true}
	for i := 1; i <= MaxNodes; i++ {
		m := Node("plinth", i)
		if seen[m.IP()] || seen[m.PodNet()] || seen[m.Port()] {
			t.Fatalf("%+v: address given twice", m)
		}
		seen[m.IP()], seen[m.PodNet()], seen[m.Port()] = true, true, true
		if !nodes.Contains(netip.MustParseAddr(m.IP())) {
			t.Errorf("%s is outside %s", m.IP(), NodeNet)
		}
		if !pods.Overlaps(netip.MustParsePrefix(m.PodNet())) {
			t.Errorf("%s is outside %s", m.PodNet(), PodNet)
		}
		if len(m.Port()) > 15 {
			t.Errorf("%s: interface name too long", m.Port())
		}
	}
}
