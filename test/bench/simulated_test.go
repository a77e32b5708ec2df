//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/agent"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// simulatedPool is the pool that simulated nodes have, and its StorageClass.
const simulatedPool = "simulated"

// renewEvery is how often a simulated node says that it lives, in time for the
// 20 seconds that the cluster of the tests gives it.
const renewEvery = 14 * time.Second

// storage is an engine whose volumes are nothing. The agent calls no other
// methods for volumes that are made and deleted.
type storage struct {
	agent.Engine
	mu      sync.Mutex
	volumes map[volume.ID]volume.Volume
}

func (s *storage) Create(_ context.Context, r volume.Request) (volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := volume.Volume{Spec: r.Spec, Name: r.Name, Pool: r.Pool}
	s.volumes[r.ID] = v
	return v, nil
}

func (s *storage) Delete(_ context.Context, _ string, id volume.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.volumes, id)
	return nil
}

func (s *storage) Get(_ context.Context, id volume.ID) (volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[id]
	if !ok {
		return v, volume.ErrNotFound
	}
	return v, nil
}

func (s *storage) List(context.Context) ([]volume.Volume, error) { return nil, nil }

func (s *storage) Pools(context.Context) []volume.PoolStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var used int64
	for _, v := range s.volumes {
		used += v.Size
	}
	const total = 1 << 40 // bytes
	return []volume.PoolStatus{{
		Name: simulatedPool, Backend: "memory", Path: "/" + simulatedPool, State: volume.PoolReady, Enforced: true,
		Total: total, Free: total - used, Reserved: used, Available: total - used, MaxVolume: total - used,
		Volumes: len(s.volumes), Modes: []volume.Mode{volume.Filesystem},
	}}
}

// simulate runs so many nodes, each with Plinth's own agent, until the test
// ends, and returns once all are published.
func (c *cluster) simulate(n int) {
	c.Helper()
	objects, err := ledger.NewClient(c.config)
	c.must(err, "make a client of the ledger")
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	c.Cleanup(func() {
		cancel()
		wg.Wait()
		c.leave(n)
	})
	c.must(atOnce(n, func(i int) error { return c.join(ctx, node(i)) }), "make nodes")
	wg.Go(func() { c.heartbeats(ctx, n) })
	for i := range n {
		a, err := agent.New(agent.Config{Node: node(i), Version: "bench", Engine: &storage{volumes: map[volume.ID]volume.Volume{}}, Objects: objects, Log: slog.New(slog.DiscardHandler)})
		c.must(err, "make an agent")
		wg.Go(func() { a.Run(ctx) })
	}
	c.await(fmt.Sprintf("%d nodes in the ledger", n), func(ctx context.Context) error {
		list, err := cache.ToListerWatcherWithContext(objects.WatchNodes("")).ListWithContext(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		return published(list, n)
	})
}

func node(i int) string { return fmt.Sprintf("simulated-%d", i) }

// join makes a Node that is ready and takes no pods, and its lease.
func (c *cluster) join(ctx context.Context, name string) error {
	const podCIDR = "10.244.255.0/24" // of all: no pod will be there, and the range has not so many
	_, err := c.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"csi.plinth.dev/node": name}},
		Spec:       corev1.NodeSpec{PodCIDR: podCIDR, PodCIDRs: []string{podCIDR}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: metav1.Now()}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = c.kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, lease(name), metav1.CreateOptions{})
	return err
}

// leave takes the nodes out of the cluster again.
func (c *cluster) leave(n int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := atOnce(n, func(i int) error {
		return errors.Join(
			c.kube.CoreV1().Nodes().Delete(ctx, node(i), metav1.DeleteOptions{}),
			c.kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, node(i), metav1.DeleteOptions{}),
		)
	})
	if err != nil {
		c.Errorf("remove nodes: %v", err)
	}
}

func lease(name string) *coordinationv1.Lease {
	now, seconds := metav1.NowMicro(), int32(40)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: corev1.NamespaceNodeLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
}

// heartbeats renews the leases, as kubelets do: evenly over the time, and one
// that takes long delays no other.
func (c *cluster) heartbeats(ctx context.Context, n int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	next := time.NewTicker(renewEvery / time.Duration(n))
	defer next.Stop()
	for i := 0; ; i++ {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			now := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
			_, err := c.kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, node(i%n), types.MergePatchType, now, metav1.PatchOptions{})
			if err != nil && ctx.Err() == nil {
				c.Errorf("renew a lease: %v", err)
			}
		})
	}
}

// class makes a class of a pool that the chart has none for, until the test ends.
func (c *cluster) class(pool string) {
	c.Helper()
	now := storagev1.VolumeBindingImmediate
	_, err := c.kube.StorageV1().StorageClasses().Create(c.ctx, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: pool},
		Provisioner:       "csi.plinth.dev",
		Parameters:        map[string]string{"pool": pool, "volumeType": "csi"},
		VolumeBindingMode: &now,
	}, metav1.CreateOptions{})
	c.must(err, "make a class")
	c.Cleanup(func() {
		if err := c.kube.StorageV1().StorageClasses().Delete(context.Background(), pool, metav1.DeleteOptions{}); err != nil {
			c.Errorf("remove class %s: %v", pool, err)
		}
	})
}
