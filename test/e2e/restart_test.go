//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
)

// TestKilledMidway: the agents of all nodes, or the controller, are killed
// while claims are being provisioned, and again while they are being deleted;
// every claim still binds, every volume is still freed.
func TestKilledMidway(t *testing.T) { // alone: others would notice
	for _, c := range []struct {
		name        string
		first, then func(e *env) (back func())
	}{
		// A second SIGKILL would only be a wait for kubelet's back-off.
		{"agents", (*env).killAgents, (*env).replaceAgents},
		{"controller", (*env).replaceController, (*env).replaceController},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			var names []string
			var back func()
			classes := make([]string, len(variants))
			for i, k := range variants {
				classes[i] = e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType})
			}
			const all = 36
			for i := range all {
				if i == all/2 {
					back = c.first(e)
				}
				names = append(names, fmt.Sprint("claim-", i))
				e.claim(names[i], classes[i%len(classes)], "16Mi")
			}
			waiting := 0
			for _, claim := range list[corev1.PersistentVolumeClaim](e, claims) {
				if bound(claim) != nil {
					waiting++
				}
			}
			if waiting == 0 {
				t.Errorf("all %d claims are bound already: nothing was cut", len(names))
			}
			t.Logf("%d of %d claims were waiting", waiting, len(names))
			var made []placed
			for _, n := range names {
				made = append(made, e.volumeOf(n))
			}
			back()
			for _, n := range names {
				e.remove(claims, n)
			}
			e.awaitDeleting(made[0].Name)
			back = c.then(e)
			for _, v := range made {
				e.awaitFreed(v)
			}
			back()
		})
	}
}

// awaitDeleting waits until a volume is marked for deletion, or gone.
func (e *env) awaitDeleting(name string) {
	e.Helper()
	err := e.watchFor(plinthVols, fields.OneTermEqualSelector("metadata.name", name).String(), func(u *unstructured.Unstructured) error {
		if u != nil && u.GetDeletionTimestamp() == nil {
			return errors.New("it is not marked for deletion")
		}
		return nil
	})
	if err != nil {
		e.Fatalf("PlinthVolume %s: %v\n%s", name, err, e.describe(plinthVols, name))
	}
}

// TestMountedThroughRestarts: pods go on writing while the agent under them
// is killed with SIGKILL and the controller deleted; afterwards the same
// volumes serve new pods with the data in them.
func TestMountedThroughRestarts(t *testing.T) { // alone: others would notice
	e := newEnv(t)
	node := e.nodeNames()[0]
	// The writer ends, and so its container restarts, on the first failed write.
	const writer = `n=$(cat /data/count 2>/dev/null || echo 0); while :; do n=$((n+1)); echo $n > /data/new && sync /data/new && mv /data/new /data/count || exit 1; sleep 0.05; done`
	var names []string
	for _, k := range variants {
		name := strings.ToLower(k.volumeType + "-" + k.backend)
		names = append(names, name)
		e.claim(name, e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType}, waiting), "32Mi")
		e.pod(name, name, onlyOn(node), running(writer))
	}
	before := map[string]int{}
	for _, n := range names {
		await(e, pods, n, "ready", ready)
		before[n] = e.counted(n, 1)
	}
	agents, controller := e.killAgents(), e.replaceController()
	agents()
	controller()
	for _, n := range names {
		e.counted(n, before[n]+40)
		if p := get[corev1.Pod](e, pods, n); p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s lost its volume while the agent was away: %+v", n, p.Status.ContainerStatuses[0].LastTerminationState)
		}
	}
	for _, n := range names {
		last := e.counted(n, 1)
		old := get[corev1.Pod](e, pods, n)
		e.remove(pods, n)
		e.awaitGone(pods, n)
		e.pod(n, n, running("exec tail -f /dev/null"))
		if got := e.awaitNewPod(n, old.UID).Spec.NodeName; got != node {
			t.Errorf("pod %s came back on %s", n, got)
		}
		if got := e.counted(n, 1); got < last {
			t.Errorf("pod %s finds count %d on its volume, had read %d before", n, got, last)
		}
	}
}

// counted reads the counter on a pod's volume once it has come to least.
func (e *env) counted(pod string, least int) int {
	e.Helper()
	count := 0
	e.eventually(fmt.Sprintf("pod %s has counted to %d", pod, least), func() error {
		out, err := e.sh(pod, "cat /data/count")
		if err != nil {
			return err
		}
		if count, err = strconv.Atoi(out); err == nil && count < least {
			err = fmt.Errorf("it is at %d", count)
		}
		return err
	})
	return count
}

// killAgents ends the agent process of every node with SIGKILL, as running
// out of memory would. back waits until kubelet has started new ones.
func (e *env) killAgents() (back func()) {
	e.Helper()
	killed := e.plinthPods("node")
	var kills sync.WaitGroup
	for _, p := range killed {
		kills.Go(func() {
			if err := e.kill(&p); err != nil {
				e.Error(err)
			}
		})
	}
	kills.Wait()
	return func() {
		e.Helper()
		for _, p := range killed {
			e.in(p.Namespace).awaitStartedAnew(&p)
		}
	}
}

// kill ends the container of a pod with SIGKILL: its first process, and with
// that one the kernel ends all others.
func (e *env) kill(p *corev1.Pod) error {
	_, id, _ := strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
	_, err := e.onNode(p.Spec.NodeName, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id)
	return err
}

// awaitStartedAnew waits until a pod serves with another container than it had.
func (e *env) awaitStartedAnew(before *corev1.Pod) *corev1.Pod {
	e.Helper()
	return await(e, pods, before.Name, "started anew", func(now *corev1.Pod) error {
		c := now.Status.ContainerStatuses
		if len(c) == 0 || c[0].ContainerID == before.Status.ContainerStatuses[0].ContainerID {
			return errors.New("kubelet has not seen that its container is dead")
		}
		return ready(now)
	})
}

// replaceAgents deletes the agents' pods without grace. back waits until
// every node has a new one that serves.
func (e *env) replaceAgents() (back func()) {
	e.Helper()
	old := e.plinthPods("node")
	for _, p := range old {
		e.in(p.Namespace).remove(pods, p.Name)
	}
	return func() {
		e.Helper()
		for _, p := range old {
			e.awaitAgent(p.Spec.NodeName, p.UID)
		}
	}
}

// replaceController deletes the controller's pod without grace. back waits
// until a new one serves.
func (e *env) replaceController() (back func()) {
	e.Helper()
	old := e.plinthPods("controller")
	for _, p := range old {
		e.in(p.Namespace).remove(pods, p.Name)
	}
	return func() {
		e.Helper()
		for _, p := range old {
			e.in(p.Namespace).awaitNewPod(p.Name, p.UID)
		}
	}
}

// in is the same test in another namespace.
func (e *env) in(ns string) *env {
	there := *e
	there.ns = ns
	return &there
}
