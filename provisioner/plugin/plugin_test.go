package plugin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bed is a plugin over a fake API server.
type bed struct {
	*Plugin
	client    *fake.FakeDynamicClient
	out, errs bytes.Buffer
}

// refused reports whether a test wanted an error that says something, and ends
// it if that is not what there is.
func refused(t *testing.T, err error, says string) bool {
	t.Helper()
	switch {
	case says == "" && err != nil:
		t.Fatal(err)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
		t.Fatalf("%v does not say %q", err, says)
	}
	return says != ""
}

func setUp(t *testing.T, objects ...runtime.Object) *bed {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, storagev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	b := &bed{client: fake.NewSimpleDynamicClient(scheme, objects...)}
	b.Plugin = &Plugin{Client: b.client, Out: &b.out, Err: &b.errs, Now: func() time.Time { return now }}
	return b
}

// writes counts the calls that change something.
func (b *bed) writes() int {
	n := 0
	for _, a := range b.client.Actions() {
		if v := a.GetVerb(); v != "get" && v != "list" && v != "watch" {
			n++
		}
	}
	return n
}

func kept(change ...func(*v1alpha1.PlinthVolume)) *v1alpha1.PlinthVolume {
	size := resource.MustParse("2Gi")
	v := &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "old", UID: "uid-old", CreationTimestamp: metav1.NewTime(now.Add(-3 * time.Hour))},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: "n1", Pool: "fast", Size: size, VolumeMode: "Filesystem", VolumeType: v1alpha1.VolumeTypeCSI,
			AccessModes: []string{"ReadWriteOncePod"}, Retained: true, ClaimNamespace: "shop", ClaimName: "db", StorageClassName: "keep",
		},
		Status: v1alpha1.PlinthVolumeStatus{Phase: v1alpha1.VolumeRetained, Size: &size},
	}
	v.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PlinthVolume"))
	for _, c := range change {
		c(v)
	}
	return v
}

func named(name string) func(*v1alpha1.PlinthVolume) {
	return func(v *v1alpha1.PlinthVolume) { v.Name = name }
}

func class(name string) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "csi.plinth.dev"}
}

func behind(volume string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-of-" + volume}}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "csi.plinth.dev", VolumeHandle: volume}
	return pv
}

func TestVolumes(t *testing.T) {
	deleted := metav1.NewTime(now)
	objects := []runtime.Object{
		kept(), behind("used"), behind("other"),
		kept(named("used"), func(v *v1alpha1.PlinthVolume) {
			v.Spec.Retained, v.Status.Phase, v.Spec.NodeName, v.Spec.ClaimNamespace = false, v1alpha1.VolumeReady, "n2", "web"
		}),
		kept(named("ending"), func(v *v1alpha1.PlinthVolume) {
			v.DeletionTimestamp, v.Finalizers, v.Status.Message = &deleted, []string{v1alpha1.Finalizer}, "it is mounted"
		}),
		kept(named("new"), func(v *v1alpha1.PlinthVolume) {
			v.Status, v.Spec.Pool, v.Spec.ClaimName, v.Spec.ClaimNamespace = v1alpha1.PlinthVolumeStatus{}, "bulk", "", ""
		}),
	}
	for _, c := range []struct {
		name   string
		filter VolumeFilter
		want   []string
	}{
		{"all", VolumeFilter{}, []string{"ending", "new", "old", "used"}},
		{"of a node", VolumeFilter{Node: "n2"}, []string{"used"}},
		{"of a pool", VolumeFilter{Pool: "bulk"}, []string{"new"}},
		{"retained", VolumeFilter{Phase: "Retained"}, []string{"old"}},
		{"being deleted", VolumeFilter{Phase: "Deleting"}, []string{"ending"}},
		{"pending", VolumeFilter{Phase: "Pending"}, []string{"new"}},
		{"of a namespace", VolumeFilter{Namespace: "web"}, []string{"used"}},
		{"none", VolumeFilter{Node: "n9"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, objects...)
			if err := b.Volumes(t.Context(), c.filter, JSON); err != nil {
				t.Fatal(err)
			}
			var l v1alpha1.PlinthVolumeList
			if err := json.Unmarshal(b.out.Bytes(), &l); err != nil || l.Kind != "List" {
				t.Fatal(err, b.out.String())
			}
			var names []string
			for _, v := range l.Items {
				names = append(names, v.Name)
			}
			if strings.Join(names, " ") != strings.Join(c.want, " ") {
				t.Errorf("%v, want %v", names, c.want)
			}
		})
	}
	b := setUp(t, objects...)
	if err := b.Volumes(t.Context(), VolumeFilter{}, Table); err != nil {
		t.Fatal(err)
	}
	const want = `NAME     PHASE      NODE   POOL   SIZE   TYPE   CLAIM     PV           AGE   MESSAGE
ending   Deleting   n1     fast   2Gi    csi    shop/db   <none>       3h    it is mounted
new      Pending    n1     bulk   2Gi    csi    <none>    <none>       3h    
old      Retained   n1     fast   2Gi    csi    shop/db   <none>       3h    
used     Ready      n2     fast   2Gi    csi    web/db    pv-of-used   3h    
`
	if got := b.out.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestNodesPoolsSnapshots(t *testing.T) {
	node := &v1alpha1.PlinthNode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	node.Status = v1alpha1.PlinthNodeStatus{
		PoolsReady: "1/2", Volumes: 3, Version: "v1",
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: "False", Message: "pool bulk is not mounted"}},
		Pools: []v1alpha1.PoolStatus{
			{Name: "fast", Backend: "btrfs", State: "Ready", Capacity: resource.MustParse("10Gi"), Available: resource.MustParse("4Gi"), Volumes: 3},
			{Name: "bulk", State: "Unavailable", Reason: "NotMounted", Message: "mount it"},
		},
	}
	snap := &v1alpha1.PlinthSnapshot{ObjectMeta: metav1.ObjectMeta{Name: "s1"}}
	snap.Spec.Volume, snap.Status.Ready = "old", true
	for _, c := range []struct {
		name string
		do   func(*bed) error
		says []string
		not  string
	}{
		{"nodes", func(b *bed) error { return b.Nodes(t.Context(), Table) }, []string{"n1", "1/2", "pool bulk is not mounted"}, ""},
		{"nodes in yaml", func(b *bed) error { return b.Nodes(t.Context(), YAML) }, []string{"kind: List", "poolsReady: 1/2"}, ""},
		{"pools", func(b *bed) error { return b.Pools(t.Context(), "", Table) }, []string{"fast", "4Gi", "Unavailable (NotMounted)", "mount it"}, ""},
		{"pools in json", func(b *bed) error { return b.Pools(t.Context(), "n1", JSON) }, []string{`"node": "n1"`, `"name": "bulk"`}, ""},
		{"pools of another", func(b *bed) error { return b.Pools(t.Context(), "n2", Table) }, nil, "fast"},
		{"snapshots", func(b *bed) error { return b.Snapshots(t.Context(), Table) }, []string{"s1", "true", "old"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, node, snap)
			if err := c.do(b); err != nil {
				t.Fatal(err)
			}
			for _, w := range c.says {
				if !strings.Contains(b.out.String(), w) {
					t.Errorf("no %q in\n%s", w, b.out.String())
				}
			}
			if c.not != "" && strings.Contains(b.out.String(), c.not) {
				t.Errorf("%q in\n%s", c.not, b.out.String())
			}
		})
	}
}

func TestAdopt(t *testing.T) {
	there := func(adopts, bound string) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "again"}}
		if adopts != "" {
			c.Annotations = map[string]string{v1alpha1.AnnotationAdopt: adopts}
		}
		c.Spec.VolumeName = bound
		return c
	}
	other := Adoption{Namespace: "web"}
	for _, c := range []struct {
		name    string
		volume  func(*v1alpha1.PlinthVolume)
		ask     Adoption
		objects []runtime.Object
		says    string // an error; "" is adopted
		adopter string // what the volume's annotation is then
		writes  int
	}{
		{name: "as it was", writes: 1},
		{name: "smaller", ask: Adoption{Size: "1Gi"}, writes: 1},
		{name: "printed", ask: Adoption{DryRun: true}},
		{name: "twice", objects: []runtime.Object{there("old", "")}},
		{name: "allowed", ask: Adoption{Namespace: "web", AllowNamespace: true}, adopter: "web", writes: 2},
		{name: "allowed beside others", volume: func(v *v1alpha1.PlinthVolume) {
			v.Annotations = map[string]string{v1alpha1.AnnotationAdopters: "one, two"}
		}, ask: Adoption{Namespace: "web", AllowNamespace: true}, adopter: "one,two,web", writes: 2},
		{name: "allowed before", volume: func(v *v1alpha1.PlinthVolume) {
			v.Annotations = map[string]string{v1alpha1.AnnotationAdopters: "web"}
		}, ask: other, adopter: "web", writes: 1},
		{name: "another namespace", ask: other, says: "--allow-namespace"},
		{name: "not there", ask: Adoption{Volume: "ald"}, says: "kubectl plinth list"},
		{name: "in use", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.Retained, v.Status.Phase = false, v1alpha1.VolumeReady }, says: "is Ready and not Retained"},
		{name: "with a PersistentVolume", objects: []runtime.Object{behind("old")}, says: "pv-of-old"},
		{name: "larger", ask: Adoption{Size: "3Gi"}, says: "expand the claim then"},
		{name: "no size", ask: Adoption{Size: "much"}, says: "10Gi"},
		{name: "no such class", ask: Adoption{Class: "kept"}, says: "--class"},
		{name: "of no class", volume: func(v *v1alpha1.PlinthVolume) { v.Spec.StorageClassName = "" }, says: "--class"},
		{name: "a claim that is bound", objects: []runtime.Object{there("", "pvc-1")}, says: "bound to pvc-1"},
		{name: "a claim that waits", objects: []runtime.Object{there("", "")}, says: "kubectl annotate pvc -n shop again plinth.dev/adopt=old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := kept()
			if c.volume != nil {
				c.volume(v)
			}
			b := setUp(t, append(c.objects, v, class("keep"))...)
			a := c.ask
			a.Claim = "again"
			if a.Volume == "" {
				a.Volume = "old"
			}
			if a.Namespace == "" {
				a.Namespace = "shop"
			}
			err := b.Adopt(t.Context(), a)
			if n := b.writes(); n != c.writes {
				t.Errorf("%d writes, want %d", n, c.writes)
			}
			if refused(t, err, c.says) {
				return
			}
			now, err := b.volume(t.Context(), "old")
			if err != nil || now.Annotations[v1alpha1.AnnotationAdopters] != c.adopter {
				t.Errorf("adopters %q, %v", now.Annotations[v1alpha1.AnnotationAdopters], err)
			}
			if a.DryRun {
				if !strings.Contains(b.out.String(), "plinth.dev/adopt: old") {
					t.Error(b.out.String())
				}
				return
			}
			if len(c.objects) == 0 {
				b.hasClaim(t, a)
			}
		})
	}
}

func (b *bed) hasClaim(t *testing.T, a Adoption) {
	t.Helper()
	claim, err := get[corev1.PersistentVolumeClaim](t.Context(), b.client.Resource(claims).Namespace(a.Namespace), "claim", a.Claim)
	if err != nil {
		t.Fatal(err)
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	want := "2Gi"
	if a.Size != "" {
		want = a.Size
	}
	if claim.Annotations[v1alpha1.AnnotationAdopt] != "old" || *claim.Spec.StorageClassName != "keep" || size.String() != want || claim.Spec.AccessModes[0] != corev1.ReadWriteOncePod {
		t.Errorf("claim %+v", claim)
	}
}

func TestOutput(t *testing.T) {
	for o, fine := range map[Output]bool{Table: true, JSON: true, YAML: true, "wide": false} {
		if err := o.Check(); (err == nil) != fine {
			t.Errorf("%q: %v", o, err)
		}
	}
}
