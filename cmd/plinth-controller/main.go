// Plinth-controller is `plinth controller`, which becomes this program. It is
// one of its own because the provisioner library brings the typed client of
// all of Kubernetes, and a node agent that carried it, though it uses none of
// it, would be twice as large in memory (docs/design.md).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/plinth-csi/plinth/cmd/process"
	"github.com/plinth-csi/plinth/driver"
	"github.com/plinth-csi/plinth/provisioner"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

// collectAt is how much garbage, in percent of what is in use, is let gather:
// half of Go's default, because the controller's caches are most of its memory
// and it has time.
const collectAt = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "plinth:", err)
		os.Exit(1)
	}
}

// controllerConfig is the flags of `plinth controller`.
type controllerConfig struct {
	driverName, namespace, podName, endpoint, httpAddress, kubeconfig string
	leaderElect, groups, debug                                        bool
	workers                                                           int
}

func newCommand() *cobra.Command {
	var c controllerConfig
	cmd := &cobra.Command{
		Use:           "plinth controller",
		Short:         "Provision volumes for claims, publish capacity, and serve the CSI controller service",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runController(cmd.Context(), c) },
	}
	host, _ := os.Hostname() // a pod's host name is the pod's name; "" owns nothing
	f := cmd.Flags()
	f.StringVar(&c.driverName, "driver-name", process.DefaultDriver, "name of the CSI driver and of the provisioner in StorageClasses")
	f.StringVar(&c.namespace, "namespace", "plinth", "namespace of this process, for CSIStorageCapacity objects and the lease")
	f.StringVar(&c.podName, "pod-name", host, "pod of this process, whose owner owns what it writes there")
	f.StringVar(&c.endpoint, "endpoint", "unix:///csi/csi.sock", "socket to serve CSI on")
	f.StringVar(&c.httpAddress, "http-address", ":9809", "address of /healthz and /readyz")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; without it, as a pod")
	f.BoolVar(&c.leaderElect, "leader-elect", false, "let one of several controllers provision")
	f.BoolVar(&c.groups, "group-snapshots", false, "serve the CSI group controller service")
	f.IntVar(&c.workers, "workers", provisioner.DefaultWorkers, "claims worked on at a time")
	f.BoolVar(&c.debug, "debug", false, "log calls that change nothing, too")
	return cmd
}

func runController(ctx context.Context, c controllerConfig) error {
	log := process.NewLog(c.debug)
	klog.SetSlogLogger(log)
	rest, err := process.KubeConfig(c.kubeconfig, "plinth-controller/"+version)
	if err != nil {
		return err
	}
	controller, err := provisioner.New(provisioner.Config{
		Driver: c.driverName, Namespace: c.namespace, PodName: c.podName, Workers: c.workers,
		LeaderElect: c.leaderElect, REST: rest, Log: log,
	})
	if err != nil {
		return err
	}
	cfg := driver.Config{
		Name: c.driverName, Version: version, Endpoint: c.endpoint, Volumes: controller.Volumes(), Snapshots: controller.Snapshots(),
		Modifier: controller.Volumes(), Log: log,
	}
	if c.groups {
		cfg.Groups = controller.Snapshots()
	}
	server, err := driver.New(cfg)
	if err != nil {
		return err
	}
	return process.Together(ctx,
		func(ctx context.Context) error { return process.ServeHealth(ctx, c.httpAddress, controller.Ready) },
		controller.Run,
		server.Run,
	)
}
