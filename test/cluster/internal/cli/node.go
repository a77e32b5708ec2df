package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/plinth-csi/plinth/test/cluster/internal/cluster"
)

func newNode(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Stop, start, kill, remove or add machines of the cluster",
		Args:  cobra.NoArgs,
	}
	one := func(use, short string, do func(*cluster.Cluster, context.Context, string) error) *cobra.Command {
		sub := &cobra.Command{
			Use: use + " NAME…", Short: short, Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, names []string) error {
				c, err := f.cluster()
				if err != nil {
					return err
				}
				for _, name := range names {
					if err := do(c, cmd.Context(), name); err != nil {
						return err
					}
					c.Log.Printf("node %s %s: done", use, name)
				}
				return nil
			},
		}
		cmd.AddCommand(sub)
		return sub
	}
	one("stop", "Shut machines down in order; NAME-control is the control plane", (*cluster.Cluster).Stop)
	forget := false
	kill := one("kill", "End all processes of machines at once, as a power cut does",
		func(c *cluster.Cluster, ctx context.Context, name string) error { return c.Kill(ctx, name, forget) })
	kill.Flags().BoolVar(&forget, "lose-unsynced", false, "the XFS and ext4 pools lose what was not synced (btrfs keeps it)")
	one("start", "Boot machines that do not run", (*cluster.Cluster).Start)
	one("remove", "Take nodes out of the cluster for good, with their disks", (*cluster.Cluster).Remove)
	cmd.AddCommand(&cobra.Command{
		Use: "add [NAME]", Short: "Join a new node to the cluster", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.cluster()
			if err != nil {
				return err
			}
			name, err := c.Add(cmd.Context(), append(args, "")[0])
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return err
		},
	})
	return cmd
}
