//go:build helm

package chart

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestMetrics: the port is there when it is wanted, with a Service that leads
// to the agent of one's own node, and a policy when there are peers to name.
func TestMetrics(t *testing.T) {
	agent := func(values string) corev1.Container {
		return one[appsv1.DaemonSet](t, values, "DaemonSet").Spec.Template.Spec.Containers[0]
	}
	if c := agent(``); slices.ContainsFunc(c.Args, func(a string) bool { return strings.Contains(a, "metrics") }) || len(c.Ports) != 1 {
		t.Errorf("by default the agent has %v and %v", c.Args, c.Ports)
	}
	const on = `metrics: {enabled: true, port: 9999}`
	c := agent(on)
	if !slices.Contains(c.Args, "--metrics-address=:9999") || len(c.Ports) != 2 || c.Ports[1].Name != "metrics" || c.Ports[1].ContainerPort != 9999 {
		t.Errorf("the agent has %v and %v", c.Args, c.Ports)
	}
	var services []corev1.Service
	for _, s := range all[corev1.Service](t, on, "Service") {
		if strings.HasSuffix(s.Name, "-metrics") {
			services = append(services, s)
		}
	}
	if len(services) != 1 || *services[0].Spec.InternalTrafficPolicy != corev1.ServiceInternalTrafficPolicyLocal || services[0].Spec.Ports[0].Port != 9999 {
		t.Errorf("services %+v", services)
	}
	if n := len(all[networkingv1.NetworkPolicy](t, on, "NetworkPolicy")); n != 0 {
		t.Errorf("%d policies without peers", n)
	}
	p := one[networkingv1.NetworkPolicy](t, `metrics: {enabled: true, allowFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}`, "NetworkPolicy")
	if in := p.Spec.Ingress; len(in) != 2 || len(in[0].From) != 0 || in[0].Ports[0].Port.StrVal != "health" || len(in[1].From) != 1 || in[1].Ports[0].Port.StrVal != "metrics" {
		t.Errorf("policy %+v", p.Spec)
	}
}

// TestServiceMonitor: only where the cluster has the kind.
func TestServiceMonitor(t *testing.T) {
	for _, c := range []struct {
		name, values string
		has          []string
		want         bool
	}{
		{"without the operator", `metrics: {enabled: true}`, nil, false},
		{"with it", `metrics: {enabled: true}`, []string{"--api-versions", "monitoring.coreos.com/v1"}, true},
		{"not wanted", `metrics: {enabled: true, serviceMonitor: {enabled: false}}`, []string{"--api-versions", "monitoring.coreos.com/v1"}, false},
		{"no metrics", ``, []string{"--api-versions", "monitoring.coreos.com/v1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := render(t, c.values, c.has...)
			if err != nil || strings.Contains(out, "kind: ServiceMonitor\n") != c.want {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
