//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"
)

const (
	// limit is how long a test waits for one thing before it calls it a
	// fault. It is generous: a busy machine is no fault.
	limit             = 4 * time.Minute
	pollInterval      = 200 * time.Millisecond // of what has no watch
	defaultKubeconfig = "/var/lib/plinth-cluster/plinth/kubeconfig"
	fieldManager      = "plinth-e2e"
)

// cluster is the cluster under test.
type cluster struct {
	config  *rest.Config
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
	binary  string       // test/cluster's program; "" if there is none
	collect func() error // gathers the evidence of a failed run, once
}

// theCluster connects once for all tests.
var theCluster = sync.OnceValues(func() (*cluster, error) {
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		path = defaultKubeconfig
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("no cluster at %s (make cluster-up starts one): %w", path, err)
	}
	config.QPS = -1 // the tests are not what is to be throttled
	config.WarningHandler = rest.NoWarnings{}
	kube, err := kubernetes.NewForConfig(config)
	dyn, dynErr := dynamic.NewForConfig(config)
	if err := errors.Join(err, dynErr); err != nil {
		return nil, err
	}
	c := &cluster{config: config, kube: kube, dynamic: dyn, binary: os.Getenv("PLINTH_CLUSTER"),
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kube.Discovery()))}
	c.collect = sync.OnceValue(c.collectEvidence)
	return c, nil
})

// collectEvidence asks the cluster for its logs, events and objects.
func (c *cluster) collectEvidence() error {
	dir, err := filepath.Abs(filepath.Join("..", "..", "out", "e2e-"+time.Now().UTC().Format("20060102-150405")))
	if err != nil {
		return err
	}
	if c.binary == "" {
		return errors.New("PLINTH_CLUSTER is not set: no logs were collected")
	}
	if out, err := exec.Command(c.binary, "collect", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%s collect %s: %w\n%s", c.binary, dir, err, out)
	}
	fmt.Fprintf(os.Stderr, "the logs, events and objects of this failed run are in %s\n", dir)
	return nil
}

// env is where one test works: a namespace of its own.
type env struct {
	*testing.T
	*cluster
	ctx context.Context
	ns  string
}

// newEnv makes a namespace. At the end of the test it is removed with all that
// was made from it; anything left behind fails the test.
func newEnv(t *testing.T) *env {
	t.Helper()
	c, err := theCluster()
	if err != nil {
		t.Fatal(err)
	}
	e := &env{T: t, cluster: c, ctx: context.Background()}
	ns, err := c.kube.CoreV1().Namespaces().Create(e.ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: map[string]string{testLabel: ""}, Annotations: map[string]string{"plinth.dev/test": t.Name()}},
	}, metav1.CreateOptions{})
	e.must(err, "make a namespace")
	e.ns = ns.Name
	t.Cleanup(func() {
		if t.Failed() {
			if err := c.collect(); err != nil {
				t.Log(err)
			}
		}
		e.removeAll()
	})
	return e
}

// must ends the test on an error, saying what was being done.
func (e *env) must(err error, doing string) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s (namespace %s): %v", doing, e.ns, err)
	}
}

// kind is a kind of object as the dynamic client names it.
type kind struct {
	schema.GroupVersionResource
	namespaced bool
}

// of is the client for the resource, in the test's namespace if it has one.
func (e *env) of(r kind) dynamic.ResourceInterface {
	if r.namespaced {
		return e.dynamic.Resource(r.GroupVersionResource).Namespace(e.ns)
	}
	return e.dynamic.Resource(r.GroupVersionResource)
}

// apply applies every document of a manifest, as kubectl would.
func (e *env) apply(manifest string) []*unstructured.Unstructured {
	e.Helper()
	var applied []*unstructured.Unstructured
	docs := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := docs.Decode(u); errors.Is(err, io.EOF) {
			return applied
		} else if err != nil {
			e.Fatalf("read a manifest: %v\n%s", err, manifest)
		}
		if len(u.Object) == 0 {
			continue
		}
		m, err := e.mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
		e.must(err, "find kind "+u.GetKind())
		r := kind{m.Resource, m.Scope.Name() == meta.RESTScopeNameNamespace}
		_, err = e.of(r).Apply(e.ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		e.must(err, "apply "+u.GetKind()+" "+u.GetName())
		applied = append(applied, u)
	}
}

// decode gives a dynamic object its type.
func decode[T any](e *env, u *unstructured.Unstructured) *T {
	e.Helper()
	out := new(T)
	e.must(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out), "read "+u.GetKind()+" "+u.GetName())
	return out
}

// get reads one object; nil if it is not there.
func get[T any](e *env, r kind, name string) *T {
	e.Helper()
	u, err := e.of(r).Get(e.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	e.must(err, "get "+r.Resource+" "+name)
	return decode[T](e, u)
}

// list reads all objects, of the namespace if the kind has one.
func list[T any](e *env, r kind) []*T {
	e.Helper()
	l, err := e.of(r).List(e.ctx, metav1.ListOptions{})
	e.must(err, "list "+r.Resource)
	out := make([]*T, len(l.Items))
	for i := range l.Items {
		out[i] = decode[T](e, &l.Items[i])
	}
	return out
}

// remove deletes one object, pods without grace, and does not wait.
func (e *env) remove(r kind, name string) {
	e.Helper()
	var opts metav1.DeleteOptions
	if r == pods {
		opts.GracePeriodSeconds = new(int64)
	}
	if err := e.of(r).Delete(e.ctx, name, opts); !apierrors.IsNotFound(err) {
		e.must(err, "delete "+r.Resource+" "+name)
	}
}

// watchFor watches objects of a kind until one of them is as wanted. done
// says what is missing, or nil. An object that was deleted comes as nil.
func (e *env) watchFor(r kind, selector string, done func(*unstructured.Unstructured) error) error {
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	missing := errors.New("there is none")
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return e.of(r).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return e.of(r).Watch(ctx, o)
		},
	}
	absent := func(s cache.Store) (bool, error) {
		return len(s.List()) == 0 && done(nil) == nil, nil
	}
	_, err := watchtools.UntilWithSync(ctx, lw, &unstructured.Unstructured{}, absent, func(ev watch.Event) (bool, error) {
		u, ok := ev.Object.(*unstructured.Unstructured)
		if !ok || ev.Type == watch.Deleted {
			u = nil
		}
		missing = done(u)
		return missing == nil, nil
	})
	if err != nil {
		return missing
	}
	return nil
}

// await watches one object until ready has nothing to ask for, and returns it
// as it then was. If that never comes, the test fails with the object and its
// events.
func await[T any](e *env, r kind, name, what string, ready func(*T) error) *T {
	e.Helper()
	var got *T
	err := e.watchFor(r, fields.OneTermEqualSelector("metadata.name", name).String(), func(u *unstructured.Unstructured) error {
		if u == nil {
			return errors.New("it is not there")
		}
		got = decode[T](e, u)
		return ready(got)
	})
	if err != nil {
		e.Fatalf("%s %s is not %s after %v: %v\n%s", r.Resource, name, what, limit, err, e.describe(r, name))
	}
	return got
}

// awaitGone watches until the object is not there any more.
func (e *env) awaitGone(r kind, name string) {
	e.Helper()
	err := e.watchFor(r, fields.OneTermEqualSelector("metadata.name", name).String(), func(u *unstructured.Unstructured) error {
		if u != nil {
			return fmt.Errorf("it is there, with finalizers %v", u.GetFinalizers())
		}
		return nil
	})
	if err != nil {
		e.Fatalf("%s %s is not gone after %v: %v\n%s", r.Resource, name, limit, err, e.describe(r, name))
	}
}

// awaitEvent watches for an event about an object whose message has all of
// the words, and returns the message. reason "" is any.
func (e *env) awaitEvent(r kind, name, reason string, words ...string) string {
	e.Helper()
	var message string
	about := fields.Set{"involvedObject.name": name}
	if reason != "" {
		about["reason"] = reason
	}
	selector := fields.SelectorFromSet(about).String()
	err := e.watchFor(events, selector, func(u *unstructured.Unstructured) error {
		if u == nil {
			return fmt.Errorf("no event %s", reason)
		}
		message = decode[corev1.Event](e, u).Message
		for _, w := range words {
			if !strings.Contains(strings.ToLower(message), strings.ToLower(w)) {
				return fmt.Errorf("event %s does not say %q: %s", reason, w, message)
			}
		}
		return nil
	})
	if err != nil {
		e.Fatalf("no event %s with %q on %s %s after %v: %v\n%s", reason, words, r.Resource, name, limit, err, e.describe(r, name))
	}
	return message
}

// eventually asks again and again about what has no watch.
func (e *env) eventually(what string, done func() error) {
	e.Helper()
	if err := e.poll(done); err != nil {
		e.Fatalf("%s: not so after %v: %v", what, limit, err)
	}
}

// poll asks until done has nothing to complain of, and returns its last
// complaint if that never comes.
func (e *env) poll(done func() error) error {
	var missing error
	err := wait.PollUntilContextTimeout(e.ctx, pollInterval, limit, true, func(context.Context) (bool, error) {
		missing = done()
		return missing == nil, nil
	})
	if err != nil {
		return missing
	}
	return nil
}

// describe prints an object and its events for a failure's text.
func (e *env) describe(r kind, name string) string {
	var b strings.Builder
	if u, err := e.of(r).Get(e.ctx, name, metav1.GetOptions{}); err != nil {
		fmt.Fprintf(&b, "%v\n", err)
	} else {
		u.SetManagedFields(nil)
		text, _ := yaml.Marshal(u.Object)
		b.Write(text)
	}
	ns := "default" // events of objects without a namespace
	if r.namespaced {
		ns = e.ns
	}
	l, err := e.kube.CoreV1().Events(ns).List(e.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		fmt.Fprintf(&b, "%v\n", err)
		return b.String()
	}
	for _, ev := range l.Items {
		fmt.Fprintf(&b, "event %s %s (%s): %s\n", ev.Type, ev.Reason, cmp.Or(ev.ReportingController, ev.Source.Component), ev.Message)
	}
	return b.String()
}
