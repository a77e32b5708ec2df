//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// limit is how long one step may take before it is a fault.
const limit = 5 * time.Minute

// pollInterval is of what is awaited between measurements.
const pollInterval = 500 * time.Millisecond

// cluster is the cluster of test/scripts/bench, and a namespace for claims.
type cluster struct {
	*run
	kube   kubernetes.Interface
	config *rest.Config
	ns     string
	turn   int // of making claims, for their names
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{run: newRun(t)}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	c.must(err, "find the cluster")
	config.QPS = -1 // what is measured is not this client
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c.config = config
	c.kube, err = kubernetes.NewForConfig(config)
	c.must(err, "make a client")
	ns, err := c.kube.CoreV1().Namespaces().Create(c.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	c.must(err, "make a namespace")
	c.ns = ns.Name
	t.Cleanup(func() { // with its claims; the cluster is ended by who started it
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := c.kube.CoreV1().Namespaces().Delete(ctx, c.ns, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove namespace %s: %v", c.ns, err)
		}
	})
	return c
}

// The controllers, each a StatefulSet.
var (
	floor  = types.NamespacedName{Namespace: "floor", Name: "floor"}
	plinth = types.NamespacedName{Namespace: "plinth-system", Name: "plinth-controller"}
)

// only has one of the controllers run and the other not: each watches all
// claims, and would work for the other's, too.
func (c *cluster) only(which types.NamespacedName) {
	c.Helper()
	for _, other := range []types.NamespacedName{floor, plinth} {
		if other != which {
			c.scale(other, 0)
		}
	}
	c.scale(which, 1)
}

// scale waits until there are so many pods and all are ready.
func (c *cluster) scale(which types.NamespacedName, replicas int) {
	c.Helper()
	sets := c.kube.AppsV1().StatefulSets(which.Namespace)
	set, err := sets.Get(c.ctx, which.Name, metav1.GetOptions{})
	c.must(err, "find "+which.String())
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err = sets.Patch(c.ctx, which.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	c.must(err, "scale "+which.String())
	c.await(fmt.Sprintf("%d pods of %v", replicas, which), func(ctx context.Context) error {
		pods, err := c.kube.CoreV1().Pods(which.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(set.Spec.Selector)})
		if err != nil {
			return err
		}
		if len(pods.Items) != replicas {
			return fmt.Errorf("there are %d pods", len(pods.Items))
		}
		for i := range pods.Items {
			if !ready(&pods.Items[i]) {
				return fmt.Errorf("%s is not ready: %+v", pods.Items[i].Name, pods.Items[i].Status)
			}
		}
		return nil
	})
}

func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// await asks again and again; nothing is measured meanwhile.
func (c *cluster) await(what string, missing func(context.Context) error) {
	c.Helper()
	var last error
	err := wait.PollUntilContextTimeout(c.ctx, pollInterval, limit, true, func(ctx context.Context) (bool, error) {
		last = missing(ctx)
		return last == nil, nil
	})
	if err != nil {
		c.Fatalf("no %s: %v: %v", what, err, last)
	}
}

// process is the process of a program in the one pod of a component of Plinth.
func (c *cluster) process(component, program string) process {
	c.Helper()
	selector := "app.kubernetes.io/name=plinth,app.kubernetes.io/component=" + component
	pods, err := c.kube.CoreV1().Pods(plinth.Namespace).List(c.ctx, metav1.ListOptions{LabelSelector: selector})
	c.must(err, "list pods")
	if len(pods.Items) != 1 {
		c.Fatalf("there are %d pods with %s", len(pods.Items), selector)
	}
	p, err := find(&pods.Items[0], program)
	c.must(err, "find a process")
	return p
}
