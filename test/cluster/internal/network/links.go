package network

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

const (
	bridge = "br0"  // in the control namespace
	uplink = "eth0" // of a node

	// nowhere is a neighbour that does not exist: programs that look for the
	// machine's address want a default route, and no packet may leave.
	nowhere = "10.200.0.254"
)

// space is one namespace, opened.
type space struct {
	*netlink.Handle
	ns netns.NsHandle
}

func open(name string) (*space, error) {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", name, err), ns.Close())
	}
	return &space{Handle: h, ns: ns}, nil
}

func (s *space) close() {
	s.Close()
	s.ns.Close() //nolint:errcheck // nothing was written
}

// SetUpControl gives the control plane's namespace its bridge and address.
func SetUpControl(control plan.Machine) error {
	s, err := open(control.Name)
	if err != nil {
		return err
	}
	defer s.close()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := s.LinkAdd(br); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the bridge in %s: %w", control.Name, err)
	}
	return s.address(control, bridge)
}

// SetUpNode joins the namespace of node to the bridge in that of control.
func SetUpNode(control, node plan.Machine) error {
	c, err := open(control.Name)
	if err != nil {
		return err
	}
	defer c.close()
	n, err := open(node.Name)
	if err != nil {
		return err
	}
	defer n.close()
	if err := c.unplug(node); err != nil {
		return err
	}
	br, err := c.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge in %s: %w", control.Name, err)
	}
	port := netlink.LinkAttrs{Name: node.Port(), MasterIndex: br.Attrs().Index}
	// Both ends are born inside the cluster, so that none is ever seen on the host.
	pair := &netlink.Veth{LinkAttrs: port, PeerName: uplink, PeerNamespace: netlink.NsFd(int(n.ns))}
	if err := c.LinkAdd(pair); err != nil {
		return fmt.Errorf("plug %s into the bridge: %w", node.Name, err)
	}
	if err := c.up(node.Port()); err != nil {
		return err
	}
	return n.address(node, uplink)
}

// Unplug takes node off the bridge. Absence is nil.
func Unplug(control, node plan.Machine) error {
	if !Exists(control.Name) {
		return nil
	}
	c, err := open(control.Name)
	if err != nil {
		return err
	}
	defer c.close()
	return c.unplug(node)
}

func (s *space) unplug(node plan.Machine) error {
	link, err := s.LinkByName(node.Port())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = s.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("unplug %s: %w", node.Name, err)
	}
	return nil
}

func (s *space) up(name string) error {
	link, err := s.LinkByName(name)
	if err == nil {
		err = s.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// address brings up the loopback and the link called name, with m's address and
// a default route.
func (s *space) address(m plan.Machine, name string) error {
	for _, n := range []string{"lo", name} {
		if err := s.up(n); err != nil {
			return err
		}
	}
	link, err := s.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", name, m.Name, err)
	}
	ip := &net.IPNet{IP: net.ParseIP(m.IP()), Mask: net.CIDRMask(plan.NodeBits, 32)}
	if err := s.AddrReplace(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", m.Name, ip, err)
	}
	return s.route(m, "0.0.0.0/0", nowhere)
}

// Route makes m reach the pods of each of nodes.
func Route(m plan.Machine, nodes []plan.Machine) error {
	s, err := open(m.Name)
	if err != nil {
		return err
	}
	defer s.close()
	for _, n := range nodes {
		if n == m {
			continue
		}
		if err := s.route(m, n.PodNet(), n.IP()); err != nil {
			return err
		}
	}
	return nil
}

func (s *space) route(m plan.Machine, to, via string) error {
	_, dst, err := net.ParseCIDR(to)
	if err == nil {
		err = s.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
	}
	if err != nil {
		return fmt.Errorf("route %s by %s on %s: %w", to, via, m.Name, err)
	}
	return nil
}
