package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/plinth-csi/plinth/cmd/process"
	"github.com/plinth-csi/plinth/driver"
)

// standaloneConfig is the flags of `plinth standalone`.
type standaloneConfig struct {
	driverName, nodeName, poolsFile, endpoint, mountsDir, metricsAddress string
	debug                                                                bool
}

func newStandaloneCommand() *cobra.Command {
	var c standaloneConfig
	cmd := &cobra.Command{
		Use:   "standalone",
		Short: "Serve all of CSI for the pools of this machine on one socket, without Kubernetes",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runStandalone(cmd.Context(), c) },
	}
	host, _ := os.Hostname() // "" is refused later, with a name for it
	f := cmd.Flags()
	f.StringVar(&c.driverName, "driver-name", process.DefaultDriver, "name of the CSI driver")
	f.StringVar(&c.nodeName, "node-name", host, "name of this node")
	f.StringVar(&c.poolsFile, "pools-file", "/etc/plinth/pools.yaml", "the pools of this node")
	f.StringVar(&c.endpoint, "endpoint", "unix:///run/plinth/csi.sock", "socket to serve CSI on")
	f.StringVar(&c.mountsDir, "mounts-dir", "/var/lib/plinth/mounts", "where volumes are mounted that are used without a driver")
	f.StringVar(&c.metricsAddress, "metrics-address", "", metricsFlagHelp)
	f.BoolVar(&c.debug, "debug", false, "log calls that change nothing, too")
	return cmd
}

func runStandalone(ctx context.Context, c standaloneConfig) error {
	log := process.NewLog(c.debug)
	e, err := openEngine(ctx, engineConfig{poolsFile: c.poolsFile, mountsDir: c.mountsDir, node: c.nodeName, log: log})
	if err != nil {
		return err
	}
	defer e.pools.Close()
	cfg := driver.Config{
		Name: c.driverName, Version: version, Node: c.nodeName, Endpoint: c.endpoint,
		Volumes: e.pools, Snapshots: e.pools, Modifier: e.pools, Health: e.pools, Mounter: e.mounts, Log: log,
	}
	if e.pools.CanGroup() { // what is announced does not change while a driver runs
		cfg.Groups = e.pools
	}
	server, err := driver.New(cfg)
	if err != nil {
		return err
	}
	return process.Together(ctx,
		server.Run,
		// Without the watch a lost disk would go unnoticed.
		func(ctx context.Context) error { return e.watch(ctx, log, func() {}) },
		func(ctx context.Context) error { return e.serveMetrics(ctx, c.metricsAddress) },
	)
}
