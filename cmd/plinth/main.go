// Plinth is local persistent storage for Kubernetes: `plinth node` on every
// node, `plinth controller` once in a cluster, and `plinth standalone` as a
// whole CSI plugin without Kubernetes. This package only wires.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

// defaultDriver is the name of the CSI driver where a flag does not say.
const defaultDriver = "csi.plinth.dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "plinth:", err)
		os.Exit(1)
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
	root.AddCommand(newNodeCommand(), newControllerCommand(), newStandaloneCommand())
	return root
}

// newLog is the log of a process: one JSON object a line on standard error.
func newLog(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
