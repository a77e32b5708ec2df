package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/plinth-csi/plinth/test/cluster/internal/cluster"
	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/tools"
)

// insidePath finds the programs of a machine, inside it.
const insidePath = kube.BinCRI + ":" + kube.BinK8s + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func newExec(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NAME -- COMMAND…",
		Short: "Run a command inside a machine; its exit code is passed on",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			argv, err := c.Enter(args[0], command)
			if err != nil {
				return err
			}
			return become(argv, "PATH="+insidePath, "CONTAINERD_NAMESPACE=k8s.io")
		},
	} // All flags after the machine's name are the command's.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func newKubectl(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl ARGS…",
		Short: "Run kubectl against the cluster; its exit code is passed on",
		// All flags after kubectl are kubectl's.
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			dir, err := c.Cache.Path("kubernetes")
			if err != nil {
				return err
			}
			return become(append([]string{filepath.Join(dir, "kubectl")}, args...), "KUBECONFIG="+c.Kubeconfig())
		},
	}
}

// become replaces this process, so that signals, the terminal and the exit code
// are those of the command. set are variables it sees besides the caller's.
func become(argv []string, set ...string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	for _, s := range set {
		key, value, _ := strings.Cut(s, "=")
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

func newKubeconfig(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of the client configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			return err
		},
	}
}

func newEnv(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print shell exports of PATH (kubectl, helm, ctr) and KUBECONFIG, for eval",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			var dirs []string
			for _, group := range []string{"kubernetes", "helm", "containerd"} {
				dir, err := c.Cache.Path(group)
				if err != nil {
					return err
				}
				dirs = append(dirs, dir)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "export PATH=%q:\"$PATH\"\nexport KUBECONFIG=%q\n",
				strings.Join(dirs, ":"), c.Kubeconfig())
			return err
		},
	}
}

func newTools() *cobra.Command {
	return &cobra.Command{
		Use:       "tools [GROUP…]",
		Short:     "Build what a cluster is made of (" + strings.Join(tools.Names(), ", ") + ") and print the folders",
		ValidArgs: tools.Names(),
		RunE: func(cmd *cobra.Command, names []string) error {
			cache, err := tools.Locate()
			if err != nil {
				return err
			}
			log := cluster.NewLog(os.Stderr)
			if err := tools.EnsurePackages(cmd.Context(), log.Printf); err != nil {
				return err
			}
			if len(names) == 0 {
				names = tools.Names()
			}
			dirs, err := cache.Build(cmd.Context(), names, log.Printf)
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), dirs[name]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
