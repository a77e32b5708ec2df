package kube

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

const (
	dnsUser   = "system:coredns"
	zoneLabel = "topology.kubernetes.io/zone"
)

// ApplyDNS makes the cluster's names resolvable: CoreDNS runs beside the API
// server, so its Service has no selector but a written EndpointSlice.
func ApplyDNS(ctx context.Context, c *Client) error {
	ports := func(target bool) list {
		out := list{{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}}
		if target {
			for _, p := range out {
				p["targetPort"] = 53
			}
		}
		return out
	}
	for _, o := range []struct {
		path string
		what object
	}{
		{"/apis/rbac.authorization.k8s.io/v1/clusterroles/" + dnsUser, object{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
			"metadata": object{"name": dnsUser},
			"rules": list{
				{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces", "nodes"}, "verbs": []string{"get", "list", "watch"}},
				{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}},
			},
		}},
		{"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/" + dnsUser, object{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
			"metadata": object{"name": dnsUser},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": dnsUser},
			"subjects": list{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": dnsUser}},
		}},
		{"/api/v1/namespaces/kube-system/services/kube-dns", object{
			"apiVersion": "v1", "kind": "Service",
			"metadata": object{"name": "kube-dns", "namespace": "kube-system", "labels": object{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
			"spec":     object{"clusterIP": plan.DNSServiceIP, "ports": ports(true)},
		}},
		{"/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns", object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
			"metadata": object{"name": "kube-dns", "namespace": "kube-system", "labels": object{
				"kubernetes.io/service-name":             "kube-dns",
				"endpointslice.kubernetes.io/managed-by": "test-cluster",
			}},
			"addressType": "IPv4",
			"endpoints":   list{{"addresses": []string{plan.ControlIP}, "conditions": object{"ready": true}}},
			"ports":       ports(false),
		}},
	} {
		if err := c.Apply(ctx, o.path, o.what); err != nil {
			return fmt.Errorf("set DNS up: %w", err)
		}
	}
	return nil
}

func nodePath(name string) string { return "/api/v1/nodes/" + name }

// ApplyNode makes the Node object before kubelet does, so that the node has the
// pod range that the plan gave it. Of one that is there it takes back what the
// last boot said, so that Ready is the word of the new one.
func ApplyNode(ctx context.Context, c *Client, m plan.Machine) error {
	err := c.Get(ctx, nodePath(m.Name), nil)
	if err == nil {
		return c.Patch(ctx, nodePath(m.Name)+"/status", object{"status": object{"conditions": list{
			{"type": "Ready", "status": "Unknown", "reason": "MachineBoots", "message": "The machine is booting."},
		}}})
	}
	if !IsNotFound(err) {
		return err
	}
	return c.Apply(ctx, nodePath(m.Name), object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": m.Name, "labels": object{
			"kubernetes.io/hostname": m.Name,
			"kubernetes.io/os":       "linux",
			"kubernetes.io/arch":     runtime.GOARCH,
			zoneLabel:                plan.Zone,
		}},
		"spec": object{"podCIDR": m.PodNet(), "podCIDRs": []string{m.PodNet()}},
	})
}

// DeleteNode removes the Node object. Absence is nil.
func DeleteNode(ctx context.Context, c *Client, m plan.Machine) error {
	return c.Delete(ctx, nodePath(m.Name))
}

// NodeReady returns nil if the node is Ready and takes pods, and what it says
// about itself otherwise.
func NodeReady(ctx context.Context, c *Client, m plan.Machine) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Reason, Message string }
		}
	}
	if err := c.Get(ctx, nodePath(m.Name), &node); err != nil {
		return err
	}
	for _, t := range node.Spec.Taints {
		if strings.HasPrefix(t.Key, "node.kubernetes.io/") && t.Key != "node.kubernetes.io/unschedulable" {
			return fmt.Errorf("node %s has the taint %s", m.Name, t.Key)
		}
	}
	for _, cond := range node.Status.Conditions {
		switch {
		case cond.Type != "Ready":
		case cond.Status != "True":
			return fmt.Errorf("node %s is not ready: %s: %s", m.Name, cond.Reason, cond.Message)
		default:
			return nil
		}
	}
	return fmt.Errorf("node %s has not said anything yet", m.Name)
}

// PodsWelcome returns nil when pods can be made in the namespaces that every
// cluster begins with.
func PodsWelcome(ctx context.Context, c *Client) error {
	for _, ns := range []string{"default", "kube-system"} {
		if err := c.Get(ctx, "/api/v1/namespaces/"+ns+"/serviceaccounts/default", nil); err != nil {
			return err
		}
	}
	return nil
}
