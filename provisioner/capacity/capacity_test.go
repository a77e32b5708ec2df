package capacity

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{Driver: "d"}); !errors.Is(err, volume.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
}

func TestName(t *testing.T) {
	names := map[string]bool{}
	for _, o := range []Offer{
		{Class: "a", Place: "node/n1"}, {Class: "a", Place: "node/n2"}, {Class: "b", Place: "node/n1"},
		{Class: "an", Place: "ode/n1"},
	} {
		if names[name("d", o)] {
			t.Errorf("the name of %+v is taken: %s", o, name("d", o))
		}
		names[name("d", o)] = true
	}
	if names[name("e", Offer{Class: "a", Place: "node/n1"})] {
		t.Error("two drivers share a name")
	}
}

// The objects follow the offers: made, updated, removed, and put right when
// somebody else changes them.
func TestPublisher(t *testing.T) {
	client := fake.NewClientset()
	offers := make(chan []Offer, 1)
	now := []Offer{
		{Class: "sc", Place: "node/n1", Nodes: []string{"n1"}, Available: 10, Max: 7},
		{Class: "sc", Place: "shared/u/n1,n2", Nodes: []string{"n1", "n2"}, Available: 5, Max: 5},
	}
	p, err := New(Config{
		Driver: "d", TopologyKey: "d/node", Namespace: "plinth", Client: client, Log: slog.New(slog.DiscardHandler),
		Owner: &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "c", UID: "u"},
		Offers: func() []Offer {
			select {
			case now = <-offers:
			default:
			}
			return now
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.StorageV1().CSIStorageCapacities("plinth").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	go p.Run(t.Context())
	node, shared := next(t, w), next(t, w)
	if node.NodeTopology.MatchLabels == nil {
		node, shared = shared, node
	}
	if node.StorageClassName != "sc" || node.NodeTopology.MatchLabels["d/node"] != "n1" || node.Capacity.Value() != 10 || node.MaximumVolumeSize.Value() != 7 {
		t.Errorf("%+v", node)
	}
	if e := shared.NodeTopology.MatchExpressions[0]; e.Key != "d/node" || !slices.Equal(e.Values, []string{"n1", "n2"}) {
		t.Errorf("%+v", e)
	}
	if node.OwnerReferences[0].Name != "c" || node.Labels[LabelDriver] != "d" || node.Labels[LabelManagedBy] != managedBy {
		t.Errorf("%+v", node.ObjectMeta)
	}
	offers <- []Offer{{Class: "sc", Place: "node/n1", Nodes: []string{"n1"}, Available: 3, Max: 3}}
	p.Changed()
	for range 2 { // one update and one removal, in any order
		c := next(t, w)
		if c.Name == node.Name && c.Capacity.Value() != 3 {
			t.Errorf("%+v", c)
		}
	}
	if got := listed(t, client); len(got) != 1 || got[0].Name != node.Name || got[0].Capacity.Value() != 3 {
		t.Fatalf("%+v", got)
	}
	if err := client.StorageV1().CSIStorageCapacities("plinth").Delete(t.Context(), node.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	next(t, w) // gone
	if c := next(t, w); c.Name != node.Name {
		t.Errorf("%+v", c)
	}
}

func next(t *testing.T, w watch.Interface) *storagev1.CSIStorageCapacity {
	t.Helper()
	e, ok := <-w.ResultChan()
	if !ok {
		t.Fatal("the watch ended")
	}
	return e.Object.(*storagev1.CSIStorageCapacity)
}

func listed(t *testing.T, client kubernetes.Interface) []storagev1.CSIStorageCapacity {
	t.Helper()
	l, err := client.StorageV1().CSIStorageCapacities("plinth").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l.Items
}
