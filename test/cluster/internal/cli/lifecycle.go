package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/plinth-csi/plinth/test/cluster/internal/cluster"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

func newUp(f *flags) *cobra.Command {
	var o plan.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make the cluster, or see that it is there",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			o.Name = f.name
			if err := c.Up(cmd.Context(), o); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			return err
		},
	}
	cmd.Flags().IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	cmd.Flags().IntVar(&o.KubeAPIQPS, "kube-api-qps", 0, "client limit of the controller-manager, in calls a second (default: its own)")
	cmd.Flags().IntVar(&o.KubeAPIBurst, "kube-api-burst", 0, "client burst of the controller-manager, in calls (default: its own)")
	cmd.Flags().BoolVar(&o.EtcdFsync, "etcd-fsync", false, "etcd flushes every write to disk: slower, and right for crash tests")
	return cmd
}

func newDown(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove everything of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			return c.Down(cmd.Context())
		},
	}
}

func newStatus(f *flags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the machines of the cluster; exit code 3 when it is not up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := printStatus(cmd.OutOrStdout(), s, output); err != nil {
				return err
			}
			if s.Phase != "up" {
				return exitCode(3)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printStatus(out io.Writer, s cluster.Status, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(s)
	case "text":
	default:
		return fmt.Errorf("output %q: want text or json", format)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "cluster %s in %s: %s\n", s.Name, s.Dir, s.Phase)
	if s.API != "" {
		fmt.Fprintf(w, "API server at 127.0.0.1:%d: %s\n", s.Port, s.API)
	}
	for _, m := range s.Machines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.State, m.IP, m.Ready)
	}
	return w.Flush()
}

func newCollect(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "collect DIR",
		Short: "Copy logs, objects and each machine's view of itself into DIR",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			return c.Collect(cmd.Context(), args[0])
		},
	}
}

func newLoadImage(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image ARCHIVE…",
		Short: "Bring the images of Docker or OCI archives to every running node",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			n, err := c.LoadImages(cmd.Context(), args)
			if err == nil {
				c.Log.Printf("%d imports were needed", n)
			}
			return err
		},
	}
}
