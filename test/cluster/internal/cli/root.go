// Package cli is the command line of the cluster program.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/cluster"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
)

// Run executes the command line args and returns the exit code.
func Run(args []string) int {
	if len(args) > 0 && args[0] == machine.Subcommand {
		return process1()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		if code, ok := errors.AsType[exitCode](err); ok {
			return int(code)
		}
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// process1 is what runs inside: see the package machine.
func process1() int {
	if err := machine.Main(); err != nil {
		fmt.Fprintln(os.Stderr, "process 1:", err)
		return 1
	}
	return 0
}

// exitCode is an exit code that speaks for itself.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// flags are what all commands know.
type flags struct{ name, dir string }

func (f *flags) cluster() (*cluster.Cluster, error) {
	return cluster.New(f.name, f.dir, cluster.NewLog(os.Stderr))
}

func newRoot() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes cluster on this machine, for tests",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		// Flags before a command are the program's, also where the command's own
		// flags are somebody else's.
		TraverseChildren: true,
	}
	root.PersistentFlags().StringVar(&f.name, "name", "plinth", "name of the cluster; several may run side by side")
	root.PersistentFlags().StringVar(&f.dir, "dir", "", "folder that the cluster lives in (default "+cluster.Home+"/NAME)")
	root.AddCommand(
		newUp(f), newDown(f), newStatus(f), newKubeconfig(f), newEnv(f),
		newNode(f), newExec(f), newKubectl(f), newLoadImage(f), newCollect(f), newTools(),
	)
	return root
}
