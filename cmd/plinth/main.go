// Plinth is local persistent storage for Kubernetes: `plinth node` on every
// node, `plinth controller` once in a cluster, `plinth snapshot` in CronJobs,
// and `plinth standalone` as a whole CSI plugin without Kubernetes. This
// package only wires.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "plinth:", err)
		os.Exit(exitCode(err))
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "plinth",
		Short:         "Local persistent storage for Kubernetes",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newNodeCommand(), newControllerCommand(), newSnapshotCommand(), newStandaloneCommand())
	return root
}
