package provisioner

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

func TestProvision(t *testing.T) {
	type node struct {
		pools  []v1alpha1.PoolStatus
		answer func(*v1alpha1.PlinthVolume) *v1alpha1.PlinthVolumeStatus
	}
	good := func(pools ...v1alpha1.PoolStatus) node { return node{pools, makes} }
	rwx := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	}
	block := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) }
	for _, tc := range []struct {
		name     string
		nodes    map[string]node
		class    map[string]string
		claim    func(*corev1.PersistentVolumeClaim)
		size     string // 1Gi
		selected string
		onNode   string // where the volume is in the end; "" if it is refused
		inPool   string
		state    controller.ProvisioningState
		says     []string
		gone     bool // nothing is left in the ledger
	}{
		{
			name: "most free space", nodes: map[string]node{"n1": good(btrfs("a", "5Gi")), "n2": good(btrfs("a", "7Gi"), btrfs("b", "6Gi"))},
			onNode: "n2", inPool: "a", state: controller.ProvisioningFinished,
		},
		{
			name: "the selected node", nodes: map[string]node{"n1": good(btrfs("a", "5Gi")), "n2": good(btrfs("a", "7Gi"))},
			selected: "n1", onNode: "n1", inPool: "a", state: controller.ProvisioningFinished,
		},
		{
			name: "the class's pool, as hostPath", nodes: map[string]node{"n1": good(btrfs("a", "50Gi"), btrfs("b", "5Gi"))},
			class: map[string]string{"pool": "b", "volumeType": "hostPath"}, onNode: "n1", inPool: "b", state: controller.ProvisioningFinished,
		},
		{
			name: "block goes to images", nodes: map[string]node{"n1": good(btrfs("a", "50Gi"), image("b", "5Gi"))}, claim: block,
			onNode: "n1", inPool: "b", state: controller.ProvisioningFinished,
		},
		{
			name: "many writers go to a shared pool", nodes: map[string]node{"n1": good(btrfs("a", "50Gi"), sharedPool("s", "5Gi"))}, claim: rwx,
			onNode: "n1", inPool: "s", state: controller.ProvisioningFinished,
		},
		{
			name:   "another node when one refuses",
			nodes:  map[string]node{"n1": good(btrfs("a", "5Gi")), "n2": {[]v1alpha1.PoolStatus{btrfs("a", "7Gi")}, refuses(v1alpha1.ReasonNoCapacity)}},
			onNode: "n1", inPool: "a", state: controller.ProvisioningFinished,
		},
		{
			name:     "rescheduled when the selected node refuses",
			nodes:    map[string]node{"n1": good(btrfs("a", "5Gi")), "n2": {[]v1alpha1.PoolStatus{btrfs("a", "7Gi")}, refuses(v1alpha1.ReasonNoCapacity)}},
			selected: "n2", state: controller.ProvisioningReschedule, gone: true, says: []string{"node n2", "pool a", "the node says NoCapacity"},
		},
		{
			name:     "rescheduled when the selected node is full",
			nodes:    map[string]node{"n1": good(btrfs("a", "500Mi")), "n2": good(btrfs("a", "5Gi"))},
			selected: "n1", state: controller.ProvisioningReschedule, gone: true, says: []string{"no pool has room for 1Gi", "500Mi", "pool a on node n1"},
		},
		{
			name:  "not rescheduled when nobody has room",
			nodes: map[string]node{"n1": good(btrfs("a", "500Mi")), "n2": good(btrfs("a", "800Mi"))},
			size:  "1Ti", selected: "n1", state: controller.ProvisioningFinished, gone: true, says: []string{"no pool has room for 1Ti", "the most that fits is 800Mi, in pool a on node n2"},
		},
		{
			name:     "a fault is not rescheduled",
			nodes:    map[string]node{"n1": {[]v1alpha1.PoolStatus{btrfs("a", "5Gi")}, refuses(v1alpha1.ReasonUnsupported)}, "n2": good(btrfs("a", "5Gi"))},
			selected: "n1", state: controller.ProvisioningFinished, gone: true, says: []string{"Unsupported"},
		},
		{
			name: "unknown pool", nodes: map[string]node{"n1": good(btrfs("a", "5Gi"), btrfs("b", "5Gi"))}, class: map[string]string{"pool": "x"},
			selected: "n1", state: controller.ProvisioningFinished, gone: true, says: []string{"unknown pool x", "the pools are a, b"},
		},
		{
			name: "unknown parameter", nodes: map[string]node{"n1": good(btrfs("a", "5Gi"))}, class: map[string]string{"quota": "no"},
			state: controller.ProvisioningFinished, gone: true, says: []string{`unknown parameter "quota"`},
		},
		{
			name: "many writers on a local pool", nodes: map[string]node{"n1": good(btrfs("a", "5Gi"))}, claim: rwx,
			state: controller.ProvisioningFinished, gone: true, says: []string{"ReadWriteMany", "pool a", "local to its node", "shared"},
		},
		{
			name: "block without images", nodes: map[string]node{"n1": good(btrfs("a", "5Gi"))}, claim: block,
			state: controller.ProvisioningFinished, gone: true, says: []string{"pool a (btrfs) has no Block volumes", "backend image"},
		},
		{
			name: "filesystem that no pool makes", nodes: map[string]node{"n1": good(btrfs("a", "5Gi"))}, class: map[string]string{"csi.storage.k8s.io/fstype": "xfs"},
			state: controller.ProvisioningFinished, gone: true, says: []string{"gives directories and makes no xfs"},
		},
		{
			name: "no nodes", nodes: map[string]node{}, state: controller.ProvisioningFinished, gone: true, says: []string{"no node reports pools"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := &ledger.Memory{}
			c, sc := claim("c", "1Gi"), class("sc", tc.class)
			if tc.size != "" {
				c = claim("c", tc.size)
			}
			if tc.claim != nil {
				tc.claim(c)
			}
			b := setUp(t, m, c, sc, readyNode("n1"), readyNode("n2"))
			for name, n := range tc.nodes {
				reports(t, m, name, n.pools...)
				(&fakeNode{name: name, answer: n.answer}).run(t, m)
			}
			b.seen(len(tc.nodes))
			pv, state, err := b.provision(c, sc, tc.selected)
			if state != tc.state {
				t.Fatalf("state %s, error %v", state, err)
			}
			for _, word := range tc.says {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("error %v does not say %q", err, word)
				}
			}
			if tc.onNode == "" {
				if err == nil || pv != nil {
					t.Fatalf("got %v, %v", pv, err)
				}
				if _, err := m.GetVolume(t.Context(), "pvc-uid-c"); tc.gone && !apierrors.IsNotFound(err) {
					t.Errorf("something is left: %v", err)
				}
				return
			}
			if err != nil || pv == nil {
				t.Fatalf("got %v, %v", pv, err)
			}
			v, err := m.GetVolume(t.Context(), pv.Name)
			if err != nil || v.Spec.NodeName != tc.onNode || v.Spec.Pool != tc.inPool {
				t.Fatalf("on %s in %s, %v", v.Spec.NodeName, v.Spec.Pool, err)
			}
			if m.Writes("CreateVolume") == 1 && m.Writes("UpdateVolumeStatus") != 1 {
				t.Errorf("%d writes of status", m.Writes("UpdateVolumeStatus"))
			}
		})
	}
}

// seen waits until the picture has the reports of so many nodes.
func (b *bed) seen(nodes int) {
	b.t.Helper()
	limit := time.After(20 * time.Second)
	for reporting(b.provisioner.picture.all()) < nodes {
		select {
		case <-limit:
			b.t.Fatal("the reports of the nodes do not come")
		case <-b.stirred():
		}
	}
}

func reporting(nodes []placement.Node) (n int) {
	for _, node := range nodes {
		if len(node.Pools) > 0 {
			n++
		}
	}
	return n
}

// stirred is ready after the next change of a node or volume.
func (b *bed) stirred() <-chan struct{} { return b.provisioner.parked.stir }

// A node that is slow gives the worker back, and its answer wakes the claim.
func TestSlowNode(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "1Gi"), class("sc", nil)
	b := setUp(t, m, c, sc, readyNode("n1"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b.seen(1)
	w := b.listen()
	b.provisioner.patience = 0
	_, state, err := b.provision(c, sc, "")
	if !rests(err) || !strings.Contains(err.Error(), "waiting for node n1") {
		t.Fatalf("%s, %v", state, err)
	}
	if b.provisioner.ShouldProvision(t.Context(), c) {
		t.Error("a claim that rests is worked on")
	}
	if !b.provisioner.slow.is("n1") {
		t.Error("the node is not known as slow")
	}
	b.provisioner.patience = time.Hour // is not spent: the node is slow
	if _, _, err := b.provision(c, sc, ""); !rests(err) {
		t.Fatalf("second try: %v", err)
	}
	(&fakeNode{name: "n1", answer: makes}).run(t, m)
	if key := w.next(t); key != string(c.UID) {
		t.Fatalf("woken: %s", key)
	}
	if !b.provisioner.ShouldProvision(t.Context(), c) {
		t.Error("a claim that was woken is not worked on")
	}
	pv, state, err := b.provision(c, sc, "")
	if err != nil || state != controller.ProvisioningFinished || pv == nil {
		t.Fatalf("after waking: %s, %v", state, err)
	}
	if b.provisioner.slow.is("n1") {
		t.Error("the node is still known as slow")
	}
	if m.Writes("CreateVolume") != 1 {
		t.Errorf("%d volumes were written", m.Writes("CreateVolume"))
	}
}

func rests(err error) bool {
	var ignored *controller.IgnoredError
	return errors.As(err, &ignored)
}

// A controller that starts finds the work of the one before.
func TestRestart(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "1Gi"), class("sc", nil)
	before := setUp(t, m, c, sc, readyNode("n1"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	before.seen(1)
	before.provisioner.patience = 0
	if _, _, err := before.provision(c, sc, ""); !rests(err) {
		t.Fatal(err)
	}
	after := setUp(t, m, c, sc, readyNode("n1"))
	if taken := after.provisioner.picture.sums; len(taken) != 1 {
		t.Errorf("promises after a restart: %v", taken)
	}
	(&fakeNode{name: "n1", answer: makes}).run(t, m)
	pv, _, err := after.provision(c, sc, "")
	if err != nil || pv.Name != "pvc-uid-c" || m.Writes("CreateVolume") != 1 {
		t.Fatalf("%v, %v; %d writes", pv, err, m.Writes("CreateVolume"))
	}
}

// Claims that come at once are spread over what there is before any node answers.
func TestBurstFitsExactly(t *testing.T) {
	m := &ledger.Memory{}
	sc := class("sc", nil)
	nodes := []string{"n1", "n2", "n3"}
	b := setUp(t, m, sc, readyNode("n1"), readyNode("n2"), readyNode("n3"))
	for _, n := range nodes {
		reports(t, m, n, btrfs("a", "2Gi"))
	}
	b.seen(3)
	b.provisioner.patience = 0
	on := map[string]int{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		c := claim(name, "1Gi")
		if err := b.factory.Core().V1().PersistentVolumeClaims().Informer().GetStore().Add(c); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.provision(c, sc, ""); !rests(err) {
			t.Fatalf("claim %s: %v", name, err)
		}
		v, err := m.GetVolume(t.Context(), volumeName(c.UID))
		if err != nil {
			t.Fatal(err)
		}
		on[v.Spec.NodeName]++
	}
	for _, n := range nodes {
		if on[n] != 2 {
			t.Errorf("volumes by node: %v", on)
		}
	}
	c := claim("g", "1Gi")
	if err := b.factory.Core().V1().PersistentVolumeClaims().Informer().GetStore().Add(c); err != nil {
		t.Fatal(err)
	}
	if _, state, err := b.provision(c, sc, ""); state != controller.ProvisioningFinished || err == nil {
		t.Errorf("the seventh: %s, %v", state, err)
	}
}

func TestClaimGone(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "1Gi"), class("sc", nil)
	b := setUp(t, m, sc, readyNode("n1")) // the claim is not there
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b.seen(1)
	if _, state, err := b.provision(c, sc, ""); state != controller.ProvisioningFinished || !errors.Is(err, errClaimGone) {
		t.Fatalf("%s, %v", state, err)
	}
	if m.Writes("CreateVolume") != 0 {
		t.Error("a volume was written for a claim that is gone")
	}
}

func TestWriteFails(t *testing.T) {
	m := &ledger.Memory{Fail: func(op, _ string) error {
		if op == "CreateVolume" {
			return apierrors.NewServiceUnavailable("away")
		}
		return nil
	}}
	c, sc := claim("c", "1Gi"), class("sc", nil)
	b := setUp(t, m, c, sc, readyNode("n1"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b.seen(1)
	if _, state, err := b.provision(c, sc, ""); state != controller.ProvisioningNoChange || err == nil {
		t.Fatalf("%s, %v", state, err)
	}
	if d := b.provisioner.limiter.When(string(c.UID)); d != firstRetry {
		t.Errorf("tried again after %s", d)
	}
	if len(b.provisioner.picture.sums) != 0 {
		t.Error("the bytes of a volume that was not written stay promised")
	}
}

// A claim that waits for its first consumer is told why it would wait in vain,
// once, and is looked at again when that changes.
func TestExplain(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "10Gi"), delayedClass("sc", nil)
	b := setUp(t, m, c, sc, readyNode("n1"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	b.seen(1)
	w := b.listen()
	for range 3 {
		if !b.provisioner.ShouldProvision(t.Context(), c) {
			t.Fatal("a claim was kept from the library")
		}
	}
	if e := <-b.events.Events; !strings.Contains(e, "ProvisioningFailed") || !strings.Contains(e, "no pool has room for 10Gi") {
		t.Errorf("event %q", e)
	}
	if n := len(b.events.Events); n != 0 {
		t.Errorf("%d more events", n)
	}
	go b.provisioner.parked.run(t.Context())
	reports(t, m, "n1", btrfs("a", "20Gi"))
	if key := w.next(t); key != string(c.UID) {
		t.Fatalf("woken: %s", key)
	}
	b.provisioner.ShouldProvision(t.Context(), c)
	if n := len(b.events.Events); n != 0 {
		t.Errorf("%d events though the claim fits", n)
	}
}

// A class that is at fault holds its claims until it is replaced.
func TestClassReplaced(t *testing.T) {
	m := &ledger.Memory{}
	c, sc := claim("c", "1Gi"), class("sc", map[string]string{"pol": "a"})
	b := setUp(t, m, c, sc, readyNode("n1"))
	w := b.listen()
	if _, state, err := b.provision(c, sc, ""); state != controller.ProvisioningFinished || err == nil {
		t.Fatalf("%s, %v", state, err)
	}
	if d := b.provisioner.limiter.When(string(c.UID)); d != netRetry {
		t.Errorf("tried again after %s, without being woken", d)
	}
	if err := b.client.StorageV1().StorageClasses().Delete(t.Context(), "sc", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if key := w.next(t); key != string(c.UID) {
		t.Fatalf("woken: %s", key)
	}
}
