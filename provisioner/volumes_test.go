package provisioner

import (
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

const gi = 1 << 30

func ask(name string, size int64, nodes ...string) volume.Request {
	return volume.Request{
		Spec: volume.Spec{Size: size, Mode: volume.Filesystem}, Name: name, Nodes: nodes,
		AccessModes: []volume.AccessMode{volume.ReadWriteOnce},
	}
}

func TestVolumesCreate(t *testing.T) {
	m := &ledger.Memory{}
	b := setUp(t, m, readyNode("n1"), readyNode("n2"))
	reports(t, m, "n1", btrfs("a", "5Gi"))
	reports(t, m, "n2", btrfs("a", "9Gi"))
	(&fakeNode{name: "n1", answer: makes}).run(t, m)
	(&fakeNode{name: "n2", answer: refuses(v1alpha1.ReasonNoCapacity)}).run(t, m)
	b.seen(2)
	for _, tc := range []struct {
		name string
		ask  volume.Request
		id   volume.ID
		node string
		is   error
	}{
		{name: "another node when one refuses", ask: ask("v", gi), id: "v", node: "n1"},
		{name: "again", ask: ask("v", gi), id: "v", node: "n1"},
		{name: "larger", ask: ask("v", 2*gi), is: volume.ErrExists},
		{name: "elsewhere", ask: ask("v", gi, "n2"), is: volume.ErrExists},
		{name: "a name that is no ID", ask: ask("Some Name", gi, "n1"), id: volume.IDForName("Some Name"), node: "n1"},
		{name: "a node that refuses", ask: ask("w", gi, "n2"), is: volume.ErrNoCapacity},
		{name: "too large", ask: ask("w", 99*gi), is: volume.ErrNoCapacity},
		{name: "unknown node", ask: ask("w", gi, "n9"), is: volume.ErrNoCapacity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := b.volumes.Create(t.Context(), tc.ask)
			if !errors.Is(err, tc.is) {
				t.Fatalf("error %v, want %v", err, tc.is)
			}
			if tc.is == nil && (v.ID != tc.id || v.Node != tc.node || v.Name != tc.ask.Name || v.Size != gi) {
				t.Errorf("%+v", v)
			}
		})
	}
	if list, err := b.volumes.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if v, err := b.volumes.Get(t.Context(), "v"); err != nil || v.Pool != "a" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := b.volumes.Delete(t.Context(), "v"); err != nil {
		t.Error(err)
	}
	if _, err := b.volumes.Get(t.Context(), "v"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if err := b.volumes.Delete(t.Context(), "v"); err != nil {
		t.Errorf("deleted twice: %v", err)
	}
	if s, err := b.volumes.Space(t.Context(), ask("", 0)); err != nil || s.Available != 14*gi || s.Max != 9*gi {
		t.Errorf("space %+v, %v", s, err)
	}
	if s, err := b.volumes.Space(t.Context(), ask("", 0, "n1")); err != nil || s.Available != 5*gi {
		t.Errorf("space on n1 %+v, %v", s, err)
	}
}

func TestVolumesExpand(t *testing.T) {
	m := &ledger.Memory{}
	v := made(t, m, "c", "n1")
	b := setUp(t, m, readyNode("n1"))
	grows := true
	(&fakeNode{name: "n1", answer: silent}).run(t, m)
	node := func(v *v1alpha1.PlinthVolume) {
		v.Status.ObservedGeneration = v.Generation
		if v.Status.Reason = v1alpha1.ReasonNoCapacity; grows {
			v.Status.Reason, v.Status.Size = "", &v.Spec.Size
		}
		if _, err := m.UpdateVolumeStatus(t.Context(), v); err != nil {
			t.Error(err)
		}
	}
	for _, tc := range []struct {
		to    int64
		grows bool
		is    error
		size  int64
	}{
		{to: 2 * gi, grows: true, size: 2 * gi},
		{to: gi, grows: true, size: 2 * gi},
		{to: 9 * gi, is: volume.ErrNoCapacity},
		{to: 3 * gi, grows: true, size: 3 * gi},
	} {
		grows = tc.grows
		done := make(chan error, 1)
		go func() {
			got, err := b.volumes.Expand(t.Context(), volume.ID(v.Name), tc.to)
			if err == nil && got.Size != tc.size {
				err = errors.New(resource.NewQuantity(got.Size, resource.BinarySI).String())
			}
			done <- err
		}()
		if tc.to > gi {
			node(b.until(v.Name, func(v *v1alpha1.PlinthVolume) bool { return v.Spec.Size.Value() == tc.to }).DeepCopy())
		}
		if err := <-done; !errors.Is(err, tc.is) {
			t.Fatalf("to %d: %v, want %v", tc.to, err, tc.is)
		}
	}
	if now, err := m.GetVolume(t.Context(), v.Name); err != nil || now.Spec.Size.Value() != 3*gi {
		t.Errorf("%+v, %v", now, err)
	}
	if _, err := b.volumes.Expand(t.Context(), "x", gi); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}
