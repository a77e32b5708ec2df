//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// The members of deploy/samples/etcd.yaml.
var etcdMembers = []string{"etcd-0", "etcd-1", "etcd-2"}

// etcdctl runs etcd's client in a member's pod.
func (e *env) etcdctl(pod string, args ...string) (string, error) {
	return e.run(pod, append([]string{"etcdctl"}, args...)...)
}

// everyMember has etcdctl ask all members, of which one may be away.
func everyMember() string {
	var urls []string
	for _, m := range etcdMembers {
		urls = append(urls, "http://"+m+".etcd:2379")
	}
	return "--endpoints=" + strings.Join(urls, ",")
}

// etcdStatus is what a member says of itself.
type etcdStatus struct {
	Header struct {
		Cluster  uint64 `json:"cluster_id"`
		Member   uint64 `json:"member_id"`
		Revision int64  `json:"revision"`
	} `json:"header"`
	Leader uint64 `json:"leader"`
}

func (e *env) etcdStatus(pod string) etcdStatus {
	e.Helper()
	out, err := e.etcdctl(pod, "endpoint", "status", "-w", "json")
	e.must(err, "ask a member for its status")
	var of []struct{ Status etcdStatus }
	e.must(json.Unmarshal([]byte(out), &of), "read a member's status")
	return of[0].Status
}

// keysOf lists what a member has on its own volume, whatever the others have.
func (e *env) keysOf(pod string) ([]string, error) {
	out, err := e.etcdctl(pod, "get", "put/", "--prefix", "--keys-only", "--consistency=s")
	return strings.Fields(out), err
}

// putter puts one key after the other through any of some pods until it is
// stopped. A put that fails is tried again through another pod, as a client of
// etcd has to.
type putter struct {
	e    *env
	done atomic.Int64 // how many keys are there
	stop func() error // returns why one could not be put for as long as a test waits
}

func putKey(n int64) string { return fmt.Sprintf("put/%06d", n) }

func (e *env) putting(after int64, pods ...string) *putter {
	p := &putter{e: e}
	p.done.Store(after)
	end := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		try := 0
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			key := putKey(p.done.Load() + 1)
			err := e.poll(func() error {
				try++
				_, err := e.etcdctl(pods[try%len(pods)], everyMember(), "--command-timeout=10s", "put", key, "value of "+key)
				return err
			})
			if err != nil {
				ended <- fmt.Errorf("put %s: %w", key, err)
				return
			}
			p.done.Add(1)
		}
	}()
	p.stop = sync.OnceValue(func() error {
		close(end)
		return <-ended
	})
	e.Cleanup(func() { _ = p.stop() })
	return p
}

// more waits until so many more keys are put.
func (p *putter) more(count int64) {
	p.e.Helper()
	least := p.done.Load() + count
	p.e.eventually(fmt.Sprintf("%d keys are put", least), func() error {
		if n := p.done.Load(); n < least {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// end stops it and returns how many keys are there.
func (p *putter) end() int64 {
	p.e.Helper()
	p.e.must(p.stop(), "put keys without a pause")
	return p.done.Load()
}

// allThere waits until each member by itself has all keys up to the last one,
// and all three have the same content.
func (e *env) allThere(last int64) {
	e.Helper()
	var want []string
	for n := range last {
		want = append(want, putKey(n+1))
	}
	for _, m := range etcdMembers {
		e.eventually(fmt.Sprintf("%s has all %d keys", m, last), func() error {
			got, err := e.keysOf(m)
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("it has %d", len(got))
			}
			return err
		})
	}
	e.eventually("the members have the same content", func() error {
		out, err := e.etcdctl(etcdMembers[0], everyMember(), "endpoint", "hashkv", "-w", "json")
		if err != nil {
			return err
		}
		var of []struct {
			HashKV struct {
				Hash uint32 `json:"hash"`
			}
		}
		if err := json.Unmarshal([]byte(out), &of); err != nil {
			return err
		}
		if len(of) != len(etcdMembers) || of[0] != of[1] || of[1] != of[2] {
			return errors.New(out)
		}
		return nil
	})
}

// TestWorkloadReplicatedStore: keys go on being put while the members of an
// etcd are replaced one after the other, and while the node of their leader is
// without power; every member comes back with what it had, to its own volume.
func TestWorkloadReplicatedStore(t *testing.T) { // alone: it takes a node away
	e := newEnv(t)
	all := e.nodeNames()
	if len(all) < len(etcdMembers) {
		t.Skipf("there are %d nodes, and it takes %d", len(all), len(etcdMembers))
	}
	node := all[len(all)-1]
	e.vacate(node)
	e.restricted()
	e.sample("etcd.yaml")
	e.awaitSet("etcd")
	before := e.members("etcd", 3)
	ids := map[string]etcdStatus{}
	on := map[string]string{} // members by node
	for _, m := range before {
		ids[m.pod.Name] = e.etcdStatus(m.pod.Name)
		on[m.pod.Spec.NodeName] = m.pod.Name
	}
	if len(on) != len(etcdMembers) {
		t.Errorf("the members are on %v", on)
	}
	asBefore := func(how string) {
		t.Helper()
		for i, m := range e.members("etcd", 3) {
			e.same(before[i], m)
			if now, was := e.etcdStatus(m.pod.Name), ids[m.pod.Name]; now.Header.Member != was.Header.Member || now.Header.Cluster != was.Header.Cluster {
				t.Errorf("%s, %s is member %+v, was %+v", how, m.pod.Name, now.Header, was.Header)
			}
		}
	}

	p := e.putting(0, etcdMembers...)
	p.more(10)
	begun := p.done.Load()
	e.patch(statefulSets, "etcd", map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sample.plinth.dev/version": "2"}}}}})
	await(e, statefulSets, "etcd", "updated", func(s *appsv1.StatefulSet) error {
		if s.Status.ObservedGeneration < s.Generation || s.Status.UpdatedReplicas != 3 || s.Status.ReadyReplicas != 3 {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
	if n := p.done.Load() - begun; n < 3 {
		t.Errorf("while three members were replaced %d keys were put", n)
	}
	e.inOrder("etcd-2", "etcd-1", "etcd-0") // so two were always there
	p.more(10)
	last := p.end()
	asBefore("updated")
	e.allThere(last)

	lost := e.members("etcd", 3)[slices.Index(etcdMembers, on[node])].pod
	rest := slices.DeleteFunc(slices.Clone(etcdMembers), func(m string) bool { return m == lost.Name })
	if s := e.etcdStatus(lost.Name); s.Leader != s.Header.Member {
		_, err := e.etcdctl(rest[0], everyMember(), "move-leader", fmt.Sprintf("%x", s.Header.Member))
		e.must(err, "make the member on "+node+" the leader")
	}
	p = e.putting(last, rest...)
	p.more(10)
	t.Cleanup(func() {
		e.power("start", node)
		e.awaitPools(node)
	})
	e.power("kill", node)
	p.more(20)
	e.power("start", node)
	e.awaitStartedAnew(lost)
	p.more(10)
	last = p.end()
	asBefore("its node lost and back")
	e.allThere(last)
}
