package provisioner

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// knownSnapshots are VolumeSnapshots by name.
type knownSnapshots map[string]boundSnapshot

func (k knownSnapshots) bound(_ context.Context, _, name string) (boundSnapshot, error) {
	s, ok := k[name]
	if !ok {
		return s, fmt.Errorf("%w: VolumeSnapshot %s does not exist", errSourceNotReady, name)
	}
	return s, nil
}

func restores(name string) *corev1.TypedObjectReference {
	return &corev1.TypedObjectReference{APIGroup: ptr(snapshotGroup), Kind: "VolumeSnapshot", Name: name}
}

func clones(name string) *corev1.TypedObjectReference {
	return &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: name}
}

// sourceBed has v1 and its snapshots in pool two of n1, a claim "source" bound
// to v1, one bound to a stranger's volume, and one that is not bound.
func sourceBed(t *testing.T, m *ledger.Memory, objects ...runtime.Object) *bed {
	t.Helper()
	volumeOn(t, m, "v1", "n1", "two", "xfs")
	for _, node := range []string{"n1", "n2"} {
		reports(t, m, node, image("one", "50Gi"), image("two", "10Gi"))
		(&fakeNode{name: node, answer: makes}).run(t, m)
	}
	snapshotOf(t, m, "s1", cut(true))
	snapshotOf(t, m, "s2", cut(false))
	bound := func(name, handle, driver string) []runtime.Object {
		c := claim(name, "1Gi")
		c.Spec.VolumeName, c.Status.Phase = "pv-"+name, corev1.ClaimBound
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name}}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}
		return []runtime.Object{c, pv}
	}
	objects = append(objects, readyNode("n1"), readyNode("n2"), claim("unbound", "1Gi"))
	objects = append(objects, bound("source", "v1", testDriver)...)
	objects = append(objects, bound("foreign", "x", "other.example")...)
	b := setUp(t, m, objects...)
	b.provisioner.snapshots = knownSnapshots{
		"snap": {testDriver, "s1"}, "copying": {testDriver, "s2"}, "gone": {testDriver, "s9"}, "theirs": {"other.example", "s1"}, "evil": {testDriver, "../s1"},
	}
	return b
}

// TestProvisionFrom: a claim that starts with something is provisioned where
// that is, and otherwise says what is wrong.
func TestProvisionFrom(t *testing.T) {
	for _, c := range []struct {
		name  string
		ref   *corev1.TypedObjectReference
		node  string // that the scheduler chose
		says  string
		state controller.ProvisioningState
	}{
		{"restore", restores("snap"), "", "", controller.ProvisioningFinished},
		{"clone", clones("source"), "", "", controller.ProvisioningFinished},
		{"its node chosen", clones("source"), "n1", "", controller.ProvisioningFinished},
		{"another node chosen", clones("source"), "n2", "is on node n1", controller.ProvisioningReschedule},
		{"snapshot missing", restores("none"), "", "does not exist", controller.ProvisioningNoChange},
		{"snapshot not whole", restores("copying"), "", "is not ready", controller.ProvisioningNoChange},
		{"snapshot deleted", restores("gone"), "", "not found", controller.ProvisioningNoChange},
		{"of another driver", restores("theirs"), "", "was taken by other.example", controller.ProvisioningFinished},
		{"a path for a handle", restores("evil"), "", "not a DNS label", controller.ProvisioningFinished},
		{"claim missing", clones("none"), "", "does not exist", controller.ProvisioningNoChange},
		{"claim not bound", clones("unbound"), "", "is not bound", controller.ProvisioningNoChange},
		{"claim of another driver", clones("foreign"), "", "cannot be cloned here", controller.ProvisioningFinished},
		{"another namespace", &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "source", Namespace: ptr("other")}, "", "claim's own", controller.ProvisioningFinished},
		{"a populator's", &corev1.TypedObjectReference{APIGroup: ptr("example.com"), Kind: "Backup", Name: "x"}, "", "left to its populator", controller.ProvisioningNoChange},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &ledger.Memory{}
			one := claim("c", "1Gi")
			one.Spec.DataSourceRef = c.ref
			b := sourceBed(t, m, one)
			pv, state, err := b.provision(one, class("sc", nil), c.node)
			if state != c.state || (err == nil) != (c.says == "") {
				t.Fatalf("%v, %v", state, err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v does not say %q", err, c.says)
				}
				if n := m.Writes("CreateVolume"); n != 1 { // v1
					t.Errorf("a volume was asked for")
				}
				return
			}
			v, _ := b.view.Volume(pv.Name)
			if v.Spec.NodeName != "n1" || v.Spec.Pool != "two" || v.Spec.FSType != "xfs" || v.Spec.Source == nil {
				t.Errorf("intent %+v", v.Spec)
			}
		})
	}
}

// TestSteer: a claim that waits for its first consumer gets the node of its
// source, unless that is of no use.
func TestSteer(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"},
		}}}
		change(p)
		return p
	}
	for _, c := range []struct {
		name  string
		ref   *corev1.TypedObjectReference
		class map[string]string
		pod   *corev1.Pod
		node  string // that is set
		event string
		fails bool // to be tried again
	}{
		{name: "restore", ref: restores("snap"), node: "n1", event: "SteeredToSource"},
		{name: "clone", ref: clones("source"), node: "n1", event: "SteeredToSource"},
		{name: "no source"},
		{name: "a populator's", ref: &corev1.TypedObjectReference{APIGroup: ptr("example.com"), Kind: "Backup", Name: "x"}},
		{name: "not there yet", ref: restores("none"), event: "WaitingForSource", fails: true},
		{name: "a pool that is not allowed", ref: restores("snap"), class: map[string]string{"pool": "one"}, event: "ProvisioningFailed"},
		{name: "pod that agrees", ref: restores("snap"), node: "n1", event: "SteeredToSource", pod: pod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "z-n1"} })},
		{name: "pod elsewhere", ref: restores("snap"), event: "SourceNodeExcluded", fails: true, pod: pod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "z-n2"} })},
		{name: "another claim's pod", ref: restores("snap"), node: "n1", event: "SteeredToSource", pod: pod(func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{"zone": "z-n2"}
			p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other"
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := claim("c", "1Gi")
			one.Spec.DataSourceRef = c.ref
			objects := []runtime.Object{one, delayedClass("sc", c.class)}
			if c.pod != nil {
				objects = append(objects, c.pod)
			}
			b := sourceBed(t, &ledger.Memory{}, objects...)
			err := b.steering.steer(t.Context(), cache.ObjectName{Namespace: "default", Name: "c"})
			if (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			now, err := b.client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "c", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := now.Annotations[selectedNode]; got != c.node {
				t.Errorf("node %q, want %q", got, c.node)
			}
			select {
			case e := <-b.events.Events:
				if c.event == "" || !strings.Contains(e, c.event) {
					t.Errorf("event %s", e)
				}
			default:
				if c.event != "" {
					t.Errorf("no event %s", c.event)
				}
			}
		})
	}
}

// TestSteeredWhenAsked: a new claim is steered without being asked for.
func TestSteeredWhenAsked(t *testing.T) {
	m := &ledger.Memory{}
	reports(t, m, "n1", image("two", "10Gi"))
	volumeOn(t, m, "v1", "n1", "two", "xfs")
	snapshotOf(t, m, "s1", cut(true))
	b := setUp(t, m, delayedClass("sc", nil), readyNode("n1"))
	b.provisioner.snapshots = knownSnapshots{"snap": {testDriver, "s1"}}
	var wg sync.WaitGroup
	wg.Go(func() { b.steering.run(t.Context()) })
	t.Cleanup(wg.Wait)
	w, err := b.client.CoreV1().PersistentVolumeClaims("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	one := claim("c", "1Gi")
	one.Spec.DataSourceRef = restores("snap")
	if _, err := b.client.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), one, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		if c := e.Object.(*corev1.PersistentVolumeClaim); c.Annotations[selectedNode] == "n1" {
			break
		}
	}
}
