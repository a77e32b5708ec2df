package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/plinth-csi/plinth/cmd/process"
	"github.com/plinth-csi/plinth/driver"
	"github.com/plinth-csi/plinth/driver/mounts"
	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/agent"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// nodeConfig is the flags of `plinth node`.
type nodeConfig struct {
	driverName, nodeName, poolsFile, mountsDir string
	endpoint, registrationDir, httpAddress     string
	metricsAddress                             string
	kubeconfig                                 string
	groups, debug                              bool
}

func newNodeCommand() *cobra.Command {
	var c nodeConfig
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve the pools of this node: make what the cluster wants of it, and mount it for kubelet",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNode(cmd.Context(), c) },
	}
	f := cmd.Flags()
	f.StringVar(&c.driverName, "driver-name", process.DefaultDriver, "name of the CSI driver")
	f.StringVar(&c.nodeName, "node-name", "", "name of this node in the cluster")
	f.StringVar(&c.poolsFile, "pools-file", "/etc/plinth/pools.yaml", "the pools of this node")
	f.StringVar(&c.endpoint, "endpoint", "unix:///var/lib/kubelet/plugins/"+process.DefaultDriver+"/csi.sock", "socket to serve CSI on")
	f.StringVar(&c.registrationDir, "registration-dir", "/var/lib/kubelet/plugins_registry", "where kubelet looks for plugins")
	f.StringVar(&c.mountsDir, "mounts-dir", "/var/lib/plinth/mounts", "where volumes are mounted that are used without a driver")
	f.StringVar(&c.httpAddress, "http-address", ":9808", "address of /healthz and /readyz")
	f.StringVar(&c.metricsAddress, "metrics-address", "", metricsFlagHelp)
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; without it, as a pod")
	f.BoolVar(&c.groups, "group-snapshots", false, "the controller serves groups: all of a plugin announce the same")
	f.BoolVar(&c.debug, "debug", false, "log calls that change nothing, too")
	return cmd
}

func runNode(ctx context.Context, c nodeConfig) error {
	log := process.NewLog(c.debug)
	klog.SetSlogLogger(log)
	rest, err := process.KubeConfig(c.kubeconfig, "plinth-node/"+version)
	if err != nil {
		return err
	}
	objects, err := ledger.NewClient(rest)
	if err != nil {
		return err
	}
	var ready atomic.Bool
	return process.Together(ctx,
		func(ctx context.Context) error { return process.ServeHealth(ctx, c.httpAddress, ready.Load) },
		func(ctx context.Context) error { return serveNode(ctx, c, objects, &ready, log) },
	)
}

// serveNode opens the pools and serves them. The API server is not needed for
// that, but for the first start of a node.
func serveNode(ctx context.Context, c nodeConfig, objects *ledger.Client, ready *atomic.Bool, log *slog.Logger) error {
	me, err := recall(ctx, c.mountsDir, c.nodeName, objects, log)
	if err != nil {
		return err
	}
	e, err := openEngine(ctx, engineConfig{
		poolsFile: c.poolsFile, mountsDir: c.mountsDir, node: c.nodeName, clusterID: me.ClusterID, known: me.Pools, log: log,
	})
	if err != nil {
		return err
	}
	defer e.pools.Close()
	a, err := agent.New(agent.Config{Node: c.nodeName, Version: version, Engine: nodeEngine{e}, Objects: objects, Log: log})
	if err != nil {
		return err
	}
	server, err := driver.New(driver.Config{
		Name: c.driverName, Version: version, Node: c.nodeName, Endpoint: c.endpoint,
		RegistrationDir: c.registrationDir, Mounter: nodeMounts{e.mounts, a}, ControllerElsewhere: true, GroupsElsewhere: c.groups, Health: e.pools, Log: log,
	})
	if err != nil {
		return err
	}
	changed := func() {
		remember(ctx, c.mountsDir, me.ClusterID, e, log)
		a.PoolsChanged()
	}
	remember(ctx, c.mountsDir, me.ClusterID, e, log)
	ready.Store(true)
	return process.Together(ctx,
		server.Run,
		func(ctx context.Context) error { return e.watch(ctx, log, changed) },
		func(ctx context.Context) error { a.Run(ctx); return nil },
		func(ctx context.Context) error { return e.serveMetrics(ctx, c.metricsAddress) },
	)
}

// nodeEngine is the agent's view of the engine.
type nodeEngine struct{ *engine }

func (e nodeEngine) Create(ctx context.Context, r volume.Request) (volume.Volume, error) {
	return e.pools.Create(ctx, r)
}

func (e nodeEngine) Delete(ctx context.Context, pool string, id volume.ID) error {
	return e.pools.DeleteIn(ctx, pool, id)
}

func (e nodeEngine) Get(ctx context.Context, id volume.ID) (volume.Volume, error) {
	return e.pools.Get(ctx, id)
}

func (e nodeEngine) List(ctx context.Context) ([]volume.Volume, error) { return e.pools.List(ctx) }

func (e nodeEngine) Expand(ctx context.Context, id volume.ID, size int64) (volume.Volume, error) {
	return e.pools.Expand(ctx, id, size)
}

func (e nodeEngine) Modify(ctx context.Context, id volume.ID, to volume.Attributes) (volume.Volume, error) {
	return e.pools.Modify(ctx, id, to)
}

func (e nodeEngine) CreateSnapshot(ctx context.Context, r volume.SnapshotRequest) (volume.Snapshot, error) {
	return e.pools.CreateSnapshot(ctx, r)
}

func (e nodeEngine) DeleteSnapshot(ctx context.Context, id volume.ID) error {
	return e.pools.DeleteSnapshot(ctx, id)
}

func (e nodeEngine) GetSnapshot(ctx context.Context, id volume.ID) (volume.Snapshot, error) {
	return e.pools.GetSnapshot(ctx, id)
}

func (e nodeEngine) CreateGroup(ctx context.Context, r volume.GroupRequest) (volume.Group, error) {
	return e.pools.CreateGroup(ctx, r)
}

func (e nodeEngine) DeleteGroup(ctx context.Context, id volume.ID) error {
	return e.pools.DeleteGroup(ctx, id)
}

func (e nodeEngine) Pools(ctx context.Context) []volume.PoolStatus { return e.pools.Pools(ctx) }

func (e nodeEngine) Expose(ctx context.Context, id volume.ID) (string, error) {
	return e.mounts.Expose(ctx, id)
}

func (e nodeEngine) Release(ctx context.Context, pool string, id volume.ID, to volume.Path) (string, error) {
	return e.pools.Release(ctx, pool, id, to)
}

func (e nodeEngine) Unexpose(ctx context.Context, id volume.ID) error {
	return e.mounts.Unexpose(ctx, id)
}

// nodeMounts tells the agent of volumes that have lost a user: a deletion may
// be waiting for that.
type nodeMounts struct {
	*mounts.Service
	agent *agent.Agent
}

// Unstage implements driver.Mounter.
func (m nodeMounts) Unstage(ctx context.Context, id volume.ID, staging string) error {
	err := m.Service.Unstage(ctx, id, staging)
	if err == nil {
		m.agent.Retry(id)
	}
	return err
}
