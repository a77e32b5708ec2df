package agent

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func TestPublish(t *testing.T) {
	m, e := &ledger.Memory{}, newEngine()
	e.volumes["stranger"] = volume.Volume{Spec: volume.Spec{ID: "stranger"}, Pool: "a", Node: "n1"}
	e.volumes["inline"] = volume.Volume{Spec: volume.Spec{ID: "inline"}, Pool: "a", Node: "n1", Ephemeral: true}
	e.volumes["shared"] = volume.Volume{Spec: volume.Spec{ID: "shared"}, Pool: "s"}
	e.pools = []volume.PoolStatus{
		{Name: "a", Backend: "btrfs", UUID: "u", State: volume.PoolReady, Total: 10 << 30, Available: 5 << 30, MaxVolume: 5 << 30, Modes: []volume.Mode{volume.Filesystem}},
		{Name: "b", UUID: "w", State: volume.PoolUnavailable, Reason: "NotMounted", Message: "nothing is mounted at /b"},
	}
	a, _ := start(t, m, e)
	n := untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n != nil && n.Status.PoolsReady == "1/2" })
	if n.Status.Version != "v1" || !strings.Contains(n.Status.Summary, "a btrfs 5Gi of 10Gi") || !strings.Contains(n.Status.Summary, "b unavailable") {
		t.Errorf("status %+v", n.Status)
	}
	if c := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "nothing is mounted at /b") {
		t.Errorf("condition %+v", c)
	}
	if c := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.ConditionRecordsMatch); c == nil || c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "1 volumes") || !strings.Contains(c.Message, "stranger") {
		t.Errorf("condition %+v", c)
	}
	if !e.has("stranger") {
		t.Error("a volume that nobody explains was removed")
	}
	known, err := KnownPools(t.Context(), m, "n1")
	if err != nil || known["a"] != "u" || known["b"] != "w" {
		t.Errorf("known %v, %v", known, err)
	}
	e.mu.Lock()
	e.pools[1].State = volume.PoolReady
	e.mu.Unlock()
	a.PoolsChanged()
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n.Status.PoolsReady == "2/2" })
	tampered, err := m.GetNode(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	tampered.Status.PoolsReady = "9/9"
	if _, err := m.UpdateNodeStatus(t.Context(), tampered); err != nil {
		t.Fatal(err)
	}
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n.Status.PoolsReady == "2/2" })
	m.DeleteNode("n1")
	untilNode(t, m, func(n *v1alpha1.PlinthNode) bool { return n != nil && n.Status.PoolsReady == "2/2" })
	if known, err := KnownPools(t.Context(), m, "n9"); err != nil || len(known) != 0 {
		t.Errorf("known of a node that never reported: %v, %v", known, err)
	}
}

func TestMatters(t *testing.T) {
	status := func(available string) v1alpha1.PlinthNodeStatus {
		return v1alpha1.PlinthNodeStatus{Pools: []v1alpha1.PoolStatus{{Capacity: resource.MustParse("100Gi"), Available: resource.MustParse(available)}}}
	}
	for available, want := range map[string]bool{"50Gi": false, "50500Mi": false, "52Gi": true, "48Gi": true} {
		if got := matters(status("50Gi"), status(available)); got != want {
			t.Errorf("50Gi to %s: %v", available, got)
		}
	}
}
