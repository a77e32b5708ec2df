//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestReboot: after a power cut of their node, pods come back with their data,
// for every type of volume. While the disk of a pool is not served, none of
// them starts: a pod without its data is worse than no pod.
func TestReboot(t *testing.T) { // alone: it takes a node away
	for _, served := range []bool{true, false} {
		t.Run(fmt.Sprintf("pool served at boot %v", served), func(t *testing.T) {
			e := newEnv(t)
			if e.binary == "" {
				t.Skip("PLINTH_CLUSTER is not set: no way to cut a node's power")
			}
			all := e.nodeNames()
			node := all[len(all)-1]
			names := map[string]string{} // of the pods: their pools
			for _, k := range variants {
				name := strings.ToLower(k.volumeType + "-" + k.backend)
				names[name] = e.pool(k.backend)
				p := params{"pool": names[name], "volumeType": k.volumeType}
				e.claim(name, e.class(p, waiting), "32Mi")
				e.pod(name, name, onlyOn(node), withoutGrace)
				if k.volumeType == "csi" {
					continue
				}
				name += "-path"
				names[name], p["pathPattern"] = p["pool"], "{namespace}/{claim}"
				e.claim(name, e.class(p, waiting), "32Mi")
				e.pod(name, name, onlyOn(node), withoutGrace)
			}
			before := map[string]*corev1.Pod{}
			for name := range names {
				before[name] = await(e, pods, name, "ready", ready)
				e.mustSh(name, "echo "+name+" > /data/file && sync")
			}
			serve := func() {}
			refused := ""
			if !served {
				refused = e.pool("image")
				serve = e.changePools(node, func(file string) string { return refusing(e, file, refused) })
			}
			e.powerCut(node)
			for name, pool := range names {
				if pool == refused {
					e.awaitEvent(pods, name, "FailedMount")
					e.notStarted(before[name])
				}
			}
			serve()
			for name := range names {
				await(e, pods, name, "back after the power cut", func(p *corev1.Pod) error {
					if c := p.Status.ContainerStatuses; c[0].ContainerID == before[name].Status.ContainerStatuses[0].ContainerID {
						return fmt.Errorf("its container has not been started anew: %+v", c[0].State)
					}
					return ready(p)
				})
				if got := e.mustSh(name, "cat /data/file"); got != name {
					t.Errorf("pod %s finds %q on its volume", name, got)
				}
			}
		})
	}
}

// notStarted checks that no container of a pod has been started since.
func (e *env) notStarted(before *corev1.Pod) {
	e.Helper()
	now := get[corev1.Pod](e, pods, before.Name)
	if c := now.Status.ContainerStatuses[0]; c.State.Running != nil && c.ContainerID != before.Status.ContainerStatuses[0].ContainerID {
		e.Errorf("pod %s runs while its volume is not mounted:\n%s", before.Name, e.describe(pods, before.Name))
	}
}

// powerCut ends a node at once and boots it again.
func (e *env) powerCut(node string) {
	e.Helper()
	e.power("kill", node)
	e.power("start", node)
}

// refusing makes a pools file in which one pool is wrong, and so not served.
func refusing(e *env, file, name string) string {
	var parsed struct {
		Pools []map[string]any `json:"pools"`
	}
	e.must(yaml.Unmarshal([]byte(file), &parsed), "read the pools file")
	for _, p := range parsed.Pools {
		if p["name"] == name {
			p["backend"] = "no-such-backend"
		}
	}
	out, err := json.Marshal(parsed)
	e.must(err, "write a pools file")
	return string(out)
}
