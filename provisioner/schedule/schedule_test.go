package schedule

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

var now = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

// The snapshot of claim data that a run of now makes.
const fresh = "hourly.data.20260102-030400"

// state is how far the snapshots are that are made.
type state string

const (
	ready   state = "ready"
	taken   state = "taken"
	waiting state = ""
)

// bed is a schedule over a fake API server with a snapshot-controller.
type bed struct {
	cfg    Config
	client *fake.FakeDynamicClient
	log    bytes.Buffer
	become map[string]state // by claim, of new snapshots; ready unless it says otherwise
}

func setUp(t *testing.T, objects ...*unstructured.Unstructured) *bed {
	t.Helper()
	var all []runtime.Object
	for _, o := range objects {
		all = append(all, o)
	}
	kinds := map[schema.GroupVersionResource]string{claims: "PersistentVolumeClaimList", snapshots: "VolumeSnapshotList", jobs: "JobList", cronJobs: "CronJobList"}
	b := &bed{client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, all...), become: map[string]state{}}
	b.client.PrependReactor("create", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
		u := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		of, _, _ := unstructured.NestedString(u.Object, "spec", "source", "persistentVolumeClaimName")
		become, told := b.become[of]
		if !told {
			become = ready
		}
		u.Object["status"] = status(become, now)
		return false, nil, nil
	})
	b.cfg = Config{
		Name: "hourly", Driver: "csi.plinth.dev", Namespaces: []string{"shop"}, Selector: "app=db", Keep: 2, Timeout: 50 * time.Millisecond,
		Client: b.client, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Now: func() time.Time { return now },
	}
	return b
}

func (b *bed) run(t *testing.T) error {
	t.Helper()
	s, err := New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s.Run(t.Context())
}

// names are those of the snapshots in a namespace.
func (b *bed) names(t *testing.T, namespace string) []string {
	t.Helper()
	l, err := b.client.Resource(snapshots).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range l.Items {
		names = append(names, u.GetName())
	}
	slices.Sort(names)
	return names
}

func status(s state, at time.Time) map[string]any {
	switch s {
	case ready:
		return map[string]any{"readyToUse": true, "creationTime": at.Format(time.RFC3339)}
	case taken:
		return map[string]any{"readyToUse": false, "creationTime": at.Format(time.RFC3339)}
	case waiting:
		return map[string]any{}
	}
	return map[string]any{"readyToUse": false, "error": map[string]any{"message": string(s)}}
}

func object(kind, namespace, name string, content map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: content}
	version := map[string]string{"PersistentVolumeClaim": "v1", "VolumeSnapshot": "snapshot.storage.k8s.io/v1", "Job": "batch/v1"}
	u.SetAPIVersion(version[kind])
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func aClaim(namespace, name string, changes ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	u := object("PersistentVolumeClaim", namespace, name, map[string]any{"status": map[string]any{"phase": "Bound"}})
	u.SetUID("uid-of-data")
	u.SetLabels(map[string]string{"app": "db"})
	for _, change := range changes {
		change(u)
	}
	return u
}

func inPhase(phase string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) { u.Object["status"] = map[string]any{"phase": phase} }
}

func of(driver string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{"volume.kubernetes.io/storage-provisioner": driver})
	}
}

func deleted(u *unstructured.Unstructured) { u.SetDeletionTimestamp(new(metav1.NewTime(now))) }

// aSnapshot is one that the schedule took of the claim data some hours ago.
func aSnapshot(name string, s state, hours int, changes ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	at := now.Add(-time.Duration(hours) * time.Hour)
	u := object("VolumeSnapshot", "shop", name, map[string]any{"status": status(s, at)})
	u.SetCreationTimestamp(metav1.NewTime(at))
	u.SetLabels(map[string]string{LabelSchedule: "hourly", LabelClaimUID: "uid-of-data"})
	for _, change := range changes {
		change(u)
	}
	return u
}

func label(key, value string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		l := u.GetLabels()
		l[key] = value
		u.SetLabels(l)
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name, says string
		change     func(*Config)
	}{
		{"as it is", "", func(*Config) {}},
		{"everywhere", "", func(c *Config) { c.Namespaces, c.AllNamespaces = nil, true }},
		{"no name", "no DNS label", func(c *Config) { c.Name = "" }},
		{"a name with a dot", "no DNS label", func(c *Config) { c.Name = "a.b" }},
		{"no namespaces", "say that all are meant", func(c *Config) { c.Namespaces = nil }},
		{"both", "say one of them", func(c *Config) { c.AllNamespaces = true }},
		{"an empty namespace", "cannot be one", func(c *Config) { c.Namespaces = []string{""} }},
		{"no selector", "its selector is empty", func(c *Config) { c.Selector = "" }},
		{"a selector that is none", "selector", func(c *Config) { c.Selector = "app in db" }},
		{"keeps none", "keep is 0", func(c *Config) { c.Keep = 0 }},
		{"no time", "times are positive", func(c *Config) { c.Timeout = 0 }},
		{"half a job", "with its namespace", func(c *Config) { c.Job = "a" }},
	} {
		cfg := setUp(t).cfg
		c.change(&cfg)
		_, err := New(cfg)
		if (err == nil) != (c.says == "") || (err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says))) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestSnapshotName(t *testing.T) {
	long := strings.Repeat("claim-", 40) + "of-a-set"
	names := map[string]bool{}
	for _, claim := range []string{"data", "data.0", long + "-0", long + "-1", strings.Repeat("a.", 120) + "b"} {
		name := snapshotName("hourly", claim, now)
		if len(name) > 253 || names[name] || name != snapshotName("hourly", claim, now.In(time.FixedZone("", 3600))) {
			t.Errorf("%s, of %d characters", name, len(name))
		}
		names[name] = true
	}
	if !names[fresh] {
		t.Errorf("no %s in %v", fresh, names)
	}
}

func TestOver(t *testing.T) {
	for _, c := range []struct {
		name    string
		all     []*unstructured.Unstructured
		keep    int
		keepFor time.Duration
		want    []string
	}{
		{name: "few enough", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 0), aSnapshot("a", ready, 1)}, keep: 2},
		{name: "too many", all: []*unstructured.Unstructured{aSnapshot("b", ready, 2), aSnapshot("c", ready, 3), aSnapshot(fresh, ready, 0), aSnapshot("a", ready, 1)}, keep: 2, want: []string{"b", "c"}},
		{name: "too old", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 0), aSnapshot("a", ready, 1), aSnapshot("b", ready, 9)}, keep: 9, keepFor: 8 * time.Hour, want: []string{"b"}},
		{name: "the last one is old", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 9)}, keep: 1, keepFor: time.Hour},
		{name: "the newest is not the run's", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 9), aSnapshot("a", ready, 8), aSnapshot("b", ready, 10)}, keep: 1, keepFor: time.Hour, want: []string{"b"}},
		{name: "not ready does not count", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 2), aSnapshot("a", taken, 0), aSnapshot("b", "fault", 1), aSnapshot("c", ready, 3)}, keep: 2},
		{name: "what goes already does not count", all: []*unstructured.Unstructured{aSnapshot(fresh, ready, 0), aSnapshot("a", ready, 1, deleted), aSnapshot("b", ready, 2)}, keep: 2},
		{name: "none", keep: 1},
	} {
		var all []*snapshot
		for _, u := range c.all {
			s, err := decode[snapshot](u)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		var got []string
		for _, s := range over(all, fresh, c.keep, c.keepFor, now) {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v go, want %v", c.name, got, c.want)
		}
	}
}

func TestRun(t *testing.T) {
	old := []*unstructured.Unstructured{aSnapshot("a", ready, 1), aSnapshot("b", ready, 2), aSnapshot("c", ready, 3)}
	data := aClaim("shop", "data")
	for _, c := range []struct {
		name    string
		objects []*unstructured.Unstructured
		become  state
		change  func(*Config)
		want    []string // in namespace shop
		says    []string // in the log; and that it failed
		fails   bool
	}{
		{name: "the first", objects: []*unstructured.Unstructured{data}, become: ready, want: []string{fresh}, says: []string{"the snapshot is ready"}},
		{name: "the oldest go", objects: append(old, data), become: ready, want: []string{"a", fresh}, says: []string{"gone=b", "gone=c"}},
		{name: "the old go", objects: append(old, data), become: ready, change: func(c *Config) { c.Keep, c.KeepFor = 9, 150*time.Minute }, want: []string{"a", "b", fresh}},
		{name: "again", objects: append(old, data, aSnapshot(fresh, ready, 0)), become: "never made", want: []string{"a", fresh}},
		{name: "a failure eats nothing", objects: append(old, data), become: "no space", fails: true, want: []string{"a", "b", "c", fresh}, says: []string{"no space"}},
		{name: "nobody takes it", objects: append(old, data), become: waiting, fails: true, want: []string{"a", "b", "c", fresh}, says: []string{"snapshot-controller"}},
		{name: "slow", objects: append(old, data), become: taken, fails: true, want: []string{"a", "b", "c", fresh}, says: []string{"being copied"}},
		{name: "none beside a slow one", objects: append(old, data, aSnapshot("z", taken, 1)), become: ready, fails: true, want: []string{"a", "b", "c", "z"}, says: []string{"no second snapshot", "being copied"}},
		{name: "in place of a failed one", objects: []*unstructured.Unstructured{data, aSnapshot("z", "no space", 1)}, become: ready, want: []string{fresh}, says: []string{"gone=z"}},
		{name: "of no schedule, of another, of another claim of that name", become: ready, want: []string{fresh, "x", "y", "z"}, change: func(c *Config) { c.Keep = 1 }, objects: []*unstructured.Unstructured{
			data, aSnapshot("x", ready, 1, func(u *unstructured.Unstructured) { u.SetLabels(nil) }),
			aSnapshot("y", ready, 1, label(LabelSchedule, "daily")), aSnapshot("z", ready, 1, label(LabelClaimUID, "uid-of-the-former")),
		}},
		{name: "the name is taken", objects: []*unstructured.Unstructured{data, aSnapshot(fresh, ready, 0, label(LabelSchedule, "daily"))}, become: ready, fails: true, want: []string{fresh}, says: []string{"not this schedule's"}},
		{name: "left alone", want: nil, says: []string{"no volume yet", "being deleted", "it is of nfs", "finds no claim"}, objects: []*unstructured.Unstructured{
			aClaim("shop", "p", inPhase("Pending")), aClaim("shop", "d", deleted), aClaim("shop", "n", of("nfs")), aClaim("shop", "o", label("app", "web")), aClaim("web", "w"),
		}},
		{name: "lost", objects: []*unstructured.Unstructured{aClaim("shop", "data", inPhase("Lost"))}, fails: true, says: []string{"is Lost"}},
		{name: "named by the provisioner", objects: []*unstructured.Unstructured{aClaim("shop", "data", of("csi.plinth.dev"))}, become: ready, want: []string{fresh}},
		{name: "everywhere", objects: []*unstructured.Unstructured{data, aClaim("web", "data")}, become: ready, change: func(c *Config) { c.Namespaces, c.AllNamespaces = nil, true }, want: []string{fresh}, says: []string{"claim=web/data"}},
		{name: "one fails, the other does not", objects: append(old, data, aClaim("shop", "lost", inPhase("Lost"))), become: ready, fails: true, want: []string{"a", fresh}, says: []string{"1 failed, and 2 claims"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, c.objects...)
			b.become["data"] = c.become
			if c.change != nil {
				c.change(&b.cfg)
			}
			err := b.run(t)
			if errors.Is(err, ErrFailed) != c.fails || (err != nil) != c.fails {
				t.Errorf("it ends with %v", err)
			}
			if got := b.names(t, "shop"); !slices.Equal(got, c.want) {
				t.Errorf("there are %v, want %v", got, c.want)
			}
			for _, w := range c.says {
				if said := b.log.String() + fmt.Sprint(err); !strings.Contains(said, w) {
					t.Errorf("no %q in\n%s", w, said)
				}
			}
		})
	}
}

// TestMade: what a snapshot says of itself.
func TestMade(t *testing.T) {
	b := setUp(t, aClaim("shop", "data"))
	b.cfg.Class = "fast"
	if err := b.run(t); err != nil {
		t.Fatal(err)
	}
	u, err := b.client.Resource(snapshots).Namespace("shop").Get(t.Context(), fresh, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if class, _, _ := unstructured.NestedString(u.Object, "spec", "volumeSnapshotClassName"); class != "fast" {
		t.Errorf("class %q", class)
	}
	if l := u.GetLabels(); l[LabelSchedule] != "hourly" || l[LabelClaim] != "data" || l[LabelClaimUID] != "uid-of-data" {
		t.Errorf("labels %v", l)
	}
}

// TestTime: the tries of a Job share the time that its CronJob gave it.
func TestTime(t *testing.T) {
	made := object("Job", "plinth", "by-hand", map[string]any{})
	made.SetCreationTimestamp(metav1.NewTime(now.Add(-time.Hour)))
	scheduled := object("Job", "plinth", "by-schedule", map[string]any{})
	scheduled.SetAnnotations(map[string]string{annotationScheduled: "2026-01-01T10:00:00+02:00"})
	for job, want := range map[string]string{"": "20260102-030400", "by-hand": "20260102-020400", "by-schedule": "20260101-080000"} {
		b := setUp(t, aClaim("shop", "data"), made, scheduled)
		if job != "" {
			b.cfg.JobNamespace, b.cfg.Job = "plinth", job
		}
		if err := b.run(t); err != nil {
			t.Fatal(err)
		}
		if got := b.names(t, "shop"); len(got) != 1 || got[0] != "hourly.data."+want {
			t.Errorf("Job %q makes %v, want %s", job, got, want)
		}
	}
	b := setUp(t)
	b.cfg.JobNamespace, b.cfg.Job = "plinth", "gone"
	if err := b.run(t); !apierrors.IsNotFound(err) {
		t.Errorf("a Job that is not there: %v", err)
	}
}

// TestWait: a snapshot that becomes ready while it is watched; and the deadline
// that one claim uses up hides nothing of another, before or after it.
func TestWait(t *testing.T) {
	for _, stuck := range []string{"a-stuck", "z-stuck"} {
		b := setUp(t, aClaim("shop", "data"), aClaim("shop", stuck, func(u *unstructured.Unstructured) { u.SetUID("uid-of-stuck") }))
		b.become["data"], b.become[stuck] = taken, "busy"
		b.cfg.Timeout = 300 * time.Millisecond
		b.client.PrependWatchReactor("volumesnapshots", func(clienttesting.Action) (bool, watch.Interface, error) {
			w, err := b.client.Tracker().Watch(snapshots, "shop")
			if updated := b.client.Tracker().Update(snapshots, aSnapshot(fresh, ready, 0), "shop"); updated != nil {
				t.Error(updated)
			}
			return true, w, err
		})
		if err := b.run(t); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "1 failed") {
			t.Errorf("it ends with %v", err)
		}
		if !strings.Contains(b.log.String(), "the snapshot is ready") || !strings.Contains(b.log.String(), "busy") {
			t.Error(b.log.String())
		}
	}
}

// TestRefused: a request that the API server refuses is told with its claim or
// namespace, and is no reason to leave out others or to delete anything.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		verb, resource string
		want           []string
	}{
		{"list", "persistentvolumeclaims", []string{"a", "b", "c"}},
		{"list", "volumesnapshots", nil},
		{"create", "volumesnapshots", []string{"a", "b", "c"}},
		{"get", "volumesnapshots", []string{"a", "b", "c", fresh}},
		{"delete", "volumesnapshots", []string{"a", "b", "c", fresh}},
	} {
		b := setUp(t, aClaim("shop", "data"), aClaim("web", "data"), aSnapshot("a", ready, 1), aSnapshot("b", ready, 2), aSnapshot("c", ready, 3))
		b.cfg.Namespaces = []string{"shop", "web"}
		b.client.PrependReactor(c.verb, c.resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
			return a.GetNamespace() == "shop", nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New("no right"))
		})
		err := b.run(t)
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "1 failed") || !strings.Contains(b.log.String(), "no right") {
			t.Errorf("%s %s: it ends with %v and\n%s", c.verb, c.resource, err, b.log.String())
		}
		if got := b.names(t, "web"); !slices.Equal(got, []string{fresh}) {
			t.Errorf("%s %s: the other namespace has %v", c.verb, c.resource, got)
		}
		if c.want != nil {
			if got := b.names(t, "shop"); !slices.Equal(got, c.want) {
				t.Errorf("%s %s: there are %v, want %v", c.verb, c.resource, got, c.want)
			}
		}
	}
}
