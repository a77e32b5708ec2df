//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// TestBadPoolsFile: a node refuses each bad pool with its line and the
// reason, makes nothing for it, and goes on serving the good ones.
func TestBadPoolsFile(t *testing.T) { // alone: it changes what a node serves
	e := newEnv(t)
	node, good := e.nodeNames()[0], e.pool("btrfs")
	agent := e.agentOn(node)
	goodPath := e.poolOn(node, good).Path
	empty := path.Join(path.Dir(goodPath), "plinth-e2e-not-mounted")
	file := path.Join(path.Dir(goodPath), "plinth-e2e-file")
	e.mustOnNode(node, "mkdir", empty)
	e.mustOnNode(node, "touch", file)
	t.Cleanup(func() {
		e.mustOnNode(node, "rmdir", empty) // fails if anything was made in it
		e.mustOnNode(node, "rm", file)
	})
	bad := []struct {
		name, entry string   // %d in a name is the line
		words       []string // of the message
	}{
		{"typo", `{name: typo, path: /mnt/typo, bakend: btrfs}`, []string{"bakend"}},
		{"relative", `{name: relative, path: mnt/relative}`, []string{"mnt/relative", "absolute"}},
		{"twin", `{name: twin, path: /mnt/plinth-e2e-twin}`, []string{"/mnt/plinth-e2e-twin"}},
		{"twin (line %d)", `{name: twin, path: /mnt/plinth-e2e-other}`, []string{"twin"}},
		{"inner", `{name: inner, path: ` + goodPath + `/inner}`, []string{good}},
		{"missing", `{name: missing, path: /mnt/plinth-e2e-missing}`, []string{"/mnt/plinth-e2e-missing"}},
		{"file", `{name: file, path: ` + file + `}`, []string{"directory"}},
		{"unmounted", `{name: unmounted, path: ` + empty + `, requireMount: true}`, []string{"mount"}},
	}
	lines := make([]int, len(bad))
	e.changePools(node, func(file string) string {
		// One pool a line, so that the line of each is known.
		var parsed struct{ Pools []json.RawMessage }
		e.must(yaml.Unmarshal([]byte(file), &parsed), "read the pools file")
		out := []string{"pools:"}
		for _, p := range parsed.Pools {
			out = append(out, "- "+string(p))
		}
		for i, b := range bad {
			out = append(out, "- "+b.entry)
			lines[i] = len(out)
			bad[i].name = strings.ReplaceAll(b.name, "%d", fmt.Sprint(len(out)))
		}
		return strings.Join(out, "\n") + "\n"
	})
	n := await(e, plinthNodes, node, "refusing the bad pools", func(n *v1alpha1.PlinthNode) error {
		for _, b := range bad {
			if p := poolNamed(n, b.name); p == nil {
				return fmt.Errorf("pool %s is not shown", b.name)
			} else if p.State == "Ready" {
				return fmt.Errorf("pool %s serves: %s", b.name, b.entry)
			}
		}
		for _, c := range n.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionFalse {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", n.Status.Conditions)
	})
	for i, b := range bad {
		p := poolNamed(n, b.name)
		t.Logf("%s: %s: %s", b.entry, p.Reason, p.Message)
		for _, w := range append(b.words, fmt.Sprintf("line %d", lines[i])) {
			if !strings.Contains(p.Message, w) {
				t.Errorf("the message about %s does not say %q: %s", b.entry, w, p.Message)
			}
		}
		if p.Reason == "" {
			t.Errorf("pool %s is refused without a reason", b.name)
		}
	}
	if now := e.agentOn(node); now.UID != agent.UID || restarts(now) != restarts(agent) {
		t.Error("the agent was restarted for the new pools file")
	}
	// The good pools of this node serve.
	e.claim("data", e.class(params{"pool": good}, waiting), "16Mi")
	e.pod("pod", "data", onlyOn(node))
	await(e, pods, "pod", "ready", ready)
}

func poolNamed(n *v1alpha1.PlinthNode, name string) *v1alpha1.PoolStatus {
	for i := range n.Status.Pools {
		if n.Status.Pools[i].Name == name {
			return &n.Status.Pools[i]
		}
	}
	return nil
}

func restarts(p *corev1.Pod) (n int32) {
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

// changePools changes the pools file, and has kubelet bring it to one node at
// once. undo is called at the end of the test if it was not before.
func (e *env) changePools(node string, change func(string) string) (undo func()) {
	e.Helper()
	agent := e.agentOn(node)
	cms := e.kube.CoreV1().ConfigMaps(agent.Namespace)
	for _, v := range agent.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		cm, err := cms.Get(e.ctx, v.ConfigMap.Name, metav1.GetOptions{})
		e.must(err, "get the ConfigMap of the pools")
		for key, file := range cm.Data {
			if !strings.Contains(file, "pools:") {
				continue
			}
			set := func(text string) {
				patch, err := json.Marshal(map[string]any{"data": map[string]string{key: text}})
				e.must(err, "write a patch")
				_, err = cms.Patch(e.ctx, cm.Name, mergePatch, patch, metav1.PatchOptions{})
				e.must(err, "change the pools file")
				// Kubelet looks at what a pod mounts whenever the pod changes.
				poke, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"plinth.dev/e2e-pools": fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}}})
				e.must(err, "write a patch")
				_, err = e.kube.CoreV1().Pods(agent.Namespace).Patch(e.ctx, e.agentOn(node).Name, mergePatch, poke, metav1.PatchOptions{})
				e.must(err, "poke the agent's pod")
			}
			undo = sync.OnceFunc(func() {
				set(file)
				e.awaitPools(node)
			})
			e.Cleanup(undo)
			set(change(file))
			return undo
		}
	}
	e.Fatalf("agent %s has no ConfigMap with pools", agent.Name)
	return nil
}

// agentOn finds the agent's pod on a node.
func (e *env) agentOn(node string) *corev1.Pod {
	e.Helper()
	for _, p := range e.plinthPods("node") {
		if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			return &p
		}
	}
	e.Fatalf("node %s has no agent", node)
	return nil
}

// restartAgent deletes the agent's pod on a node and waits for the next one.
func (e *env) restartAgent(node string) {
	e.Helper()
	old := e.agentOn(node)
	e.in(old.Namespace).remove(pods, old.Name)
	e.awaitAgent(node, old.UID)
}

// awaitAgent waits until an agent that is not the old one serves a node.
func (e *env) awaitAgent(node string, old types.UID) {
	e.Helper()
	e.eventually("node "+node+" has a new agent", func() error {
		for _, p := range e.plinthPods("node") {
			if p.Spec.NodeName == node && p.UID != old {
				return ready(&p)
			}
		}
		return errors.New("there is none")
	})
}

// awaitPools waits until every pool of a node serves.
func (e *env) awaitPools(node string) {
	e.Helper()
	await(e, plinthNodes, node, "serving all its pools", func(n *v1alpha1.PlinthNode) error {
		for _, c := range n.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", n.Status.Conditions)
	})
}

// TestDiskNotMounted: when a pool's disk is not mounted, nothing is written
// into the directory below, the claim says why it waits, and it binds once the
// disk is back. That holds while the agent runs and when it is started anew.
func TestDiskNotMounted(t *testing.T) { // alone: it takes a disk away
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("agent restarted %v", restarted), func(t *testing.T) {
			e := newEnv(t)
			node, pool := e.nodeNames()[0], e.pool("image")
			dir := e.poolOn(node, pool).Path
			device, fstype, _ := strings.Cut(e.mustOnNode(node, "findmnt", "--noheadings", "--raw", "--output", "SOURCE,FSTYPE", "--mountpoint", dir), " ")
			mount := func() {
				if _, err := e.onNode(node, "mountpoint", "--quiet", dir); err != nil {
					e.mustOnNode(node, "mount", "-t", fstype, device, dir)
				}
			}
			// Lazily, as a disk goes: the agent has the pool open.
			e.mustOnNode(node, "umount", "--lazy", dir)
			t.Cleanup(func() {
				mount()
				e.awaitPools(node)
			})
			if restarted {
				e.restartAgent(node)
			}
			e.claim("data", e.class(params{"pool": pool}, madeOn(node)), "16Mi")
			message := e.awaitEvent(claims, "data", "ProvisioningFailed", pool)
			t.Log(message)
			n := await(e, plinthNodes, node, "refusing the pool", func(n *v1alpha1.PlinthNode) error {
				if p := poolNamed(n, pool); p == nil || p.State == "Ready" {
					return fmt.Errorf("pool %s is %+v", pool, p)
				}
				return nil
			})
			if p := poolNamed(n, pool); !strings.Contains(p.Message, "mount") {
				t.Errorf("the pool's message does not speak of the mount: %s: %s", p.Reason, p.Message)
			}
			if left := e.mustOnNode(node, "find", dir, "-mindepth", "1"); left != "" {
				t.Errorf("the directory below the missing mount has got: %s", left)
			}
			mount()
			e.awaitPools(node)
			if got := e.volumeOf("data").Spec.NodeName; got != node {
				t.Errorf("the volume is on %s", got)
			}
			// Free the disk before the cleanup of the next round.
			v := e.volumeOf("data")
			e.remove(claims, "data")
			e.awaitFreed(v)
		})
	}
}
