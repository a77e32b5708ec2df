// Package plan decides names and addresses. It is pure: the same options always
// give the same plan, so nothing here needs to be stored to be found again.
package plan

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Addresses inside a cluster. They are the same in every cluster: no packet
// leaves the network namespaces of the cluster it belongs to.
const (
	ControlIP    = "10.200.0.1" // the bridge in the control namespace: API server, DNS
	NodeNet      = "10.200.0.0/24"
	NodeBits     = 24
	PodNet       = "10.244.0.0/16"
	ServiceNet   = "10.96.0.0/16"
	APIServiceIP = "10.96.0.1"
	DNSServiceIP = "10.96.0.10"
	APIPort      = 6443
	Domain       = "cluster.local"
	Zone         = "zone-a"

	// MaxNodes is what one /24 of node addresses and the kernel's patience allow.
	MaxNodes = 50
)

// Options are what a cluster is made with. Two clusters of equal options are interchangeable.
type Options struct {
	Name         string `json:"name"`
	Nodes        int    `json:"nodes"`
	KubeAPIQPS   int    `json:"kubeAPIQPS,omitempty"`   // of the controller-manager; 0: its default
	KubeAPIBurst int    `json:"kubeAPIBurst,omitempty"` // of the controller-manager; 0: its default
	EtcdFsync    bool   `json:"etcdFsync,omitempty"`    // etcd flushes to disk, for crash tests
}

// A name ends up in namespaces, cgroups and host names.
var validName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$`)

// Validate says what cannot be built.
func (o Options) Validate() error {
	var errs []error
	if !validName.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf("cluster name %q: must match %s", o.Name, validName))
	}
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		errs = append(errs, fmt.Errorf("%d nodes: must be between 1 and %d", o.Nodes, MaxNodes))
	}
	if o.KubeAPIQPS < 0 || o.KubeAPIBurst < 0 {
		errs = append(errs, errors.New("client limits of the controller-manager cannot be negative"))
	}
	return errors.Join(errs...)
}

// Machine is one node, or the control plane.
type Machine struct {
	Name  string
	Index int // 0: the control plane; nodes count from 1
}

// Control returns the machine of the control plane of the cluster called name.
func Control(name string) Machine { return Machine{Name: name + "-control"} }

// Node returns the node of the cluster called name that has the index.
func Node(name string, index int) Machine {
	return Machine{Name: name + "-" + strconv.Itoa(index), Index: index}
}

// Parse finds the machine of the cluster called name from the machine's own name.
func Parse(name, machine string) (Machine, error) {
	if machine == Control(name).Name {
		return Control(name), nil
	}
	rest, ok := strings.CutPrefix(machine, name+"-")
	index, err := strconv.Atoi(rest)
	if !ok || err != nil || index < 1 || index > MaxNodes || Node(name, index).Name != machine {
		return Machine{}, fmt.Errorf("machine %q: want %s-1 to %s-%d, or %s", machine, name, name, MaxNodes, Control(name).Name)
	}
	return Node(name, index), nil
}

// IsControl says whether m runs the control plane.
func (m Machine) IsControl() bool { return m.Index == 0 }

// IP is the address of m on the node network.
func (m Machine) IP() string {
	if m.IsControl() {
		return ControlIP
	}
	return fmt.Sprintf("10.200.0.%d", 10+m.Index)
}

// PodNet is the range that pods on m get their addresses from.
func (m Machine) PodNet() string { return fmt.Sprintf("10.244.%d.0/24", m.Index) }

// Port is the name of m's port on the bridge in the control namespace.
func (m Machine) Port() string { return fmt.Sprintf("node%d", m.Index) }
