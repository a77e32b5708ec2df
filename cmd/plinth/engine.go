package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/plinth-csi/plinth/cmd/process"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/metrics"
	"github.com/plinth-csi/plinth/driver/mounts"
	"github.com/plinth-csi/plinth/driver/pool"
)

// engineConfig is what a node's pools and mounts are opened with.
type engineConfig struct {
	poolsFile string
	mountsDir string
	node      string
	clusterID string            // "" without a cluster
	known     map[string]string // the UUIDs that this node has reported, by pool
	log       *slog.Logger
}

// engine is the pools of this node and what mounts their volumes.
type engine struct {
	pools  *pool.Manager
	mounts *mounts.Service
	file   *poolsFile
}

// openEngine opens the pools and exposes again what was exposed.
func openEngine(ctx context.Context, c engineConfig) (*engine, error) {
	file := &poolsFile{name: c.poolsFile}
	cfg, _, err := file.read()
	if err != nil {
		return nil, err
	}
	manager, err := pool.Open(ctx, pool.Options{
		Config: cfg, Node: c.node, ClusterID: c.clusterID, Known: c.known,
		Backends: backends(run.Exec{}, c.log), Log: c.log,
	})
	if err != nil {
		return nil, err
	}
	service, err := mounts.New(mounts.Options{
		Volumes: manager, Host: mounts.Machine{Runner: run.Exec{}}, Dir: c.mountsDir, Log: c.log,
	})
	if err != nil {
		manager.Close()
		return nil, err
	}
	e := &engine{pools: manager, mounts: service, file: file}
	e.restore(ctx, c.log)
	return e, nil
}

// restore exposes volumes again. What cannot be now is tried again when its
// pool comes back, and does not keep the others from being served.
func (e *engine) restore(ctx context.Context, log *slog.Logger) {
	if err := e.mounts.Restore(ctx); err != nil {
		log.Error("exposed volumes are not back", "error", err.Error())
	}
}

// watch follows disks as they come and go, and the pools file, until the
// context ends; changed is called after either changed, once at a time.
func (e *engine) watch(ctx context.Context, log *slog.Logger, changed func()) error {
	var one sync.Mutex
	told := func() {
		one.Lock()
		defer one.Unlock()
		e.restore(ctx, log)
		changed()
	}
	return process.Together(ctx,
		func(ctx context.Context) error { return e.pools.Watch(ctx, told) },
		func(ctx context.Context) error { e.file.follow(ctx, e.pools, log, told); return nil },
	)
}

const metricsFlagHelp = "address of /metrics, for Prometheus; without it there are none"

// serveMetrics shows what the pools and their volumes hold.
func (e *engine) serveMetrics(ctx context.Context, address string) error {
	return process.Serve(ctx, address, metrics.Handler(version, e.pools.Gauges))
}
