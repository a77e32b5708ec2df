package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/plinth-csi/plinth/provisioner/plugin"
)

// cli is what all commands share: the flags of kubectl, and where to write.
type cli struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides *clientcmd.ConfigOverrides
	out, err  io.Writer
}

func newCommand(out, errs io.Writer) *cobra.Command {
	c := &cli{rules: clientcmd.NewDefaultClientConfigLoadingRules(), overrides: &clientcmd.ConfigOverrides{}, out: out, err: errs}
	cmd := &cobra.Command{
		Use:           "kubectl-plinth",
		Short:         "What Plinth keeps in this cluster, and whose it is",
		Annotations:   display(),
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetOut(out)
	cmd.SetErr(errs)
	f := cmd.PersistentFlags()
	f.StringVar(&c.rules.ExplicitPath, "kubeconfig", "", "file that says how to reach the API server")
	clientcmd.BindOverrideFlags(c.overrides, f, clientcmd.RecommendedConfigOverrideFlags(""))
	cmd.AddCommand(c.list(), c.nodes(), c.pools(), c.snapshots(), c.adopt(), c.undelete(), c.importDirectory(), c.release())
	return cmd
}

// config is the kubeconfig as kubectl reads it.
func (c *cli) config() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules, c.overrides)
}

// namespace is the current one, or that of --namespace.
func (c *cli) namespace() (string, error) {
	name, _, err := c.config().Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return name, nil
}

// plugin connects.
func (c *cli) plugin() (*plugin.Plugin, error) {
	rest, err := c.config().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reaching a cluster: %w", err)
	}
	rest.UserAgent = "kubectl-plinth/" + version
	client, err := dynamic.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("reaching the cluster: %w", err)
	}
	return &plugin.Plugin{Client: client, Out: c.out, Err: c.err, Now: time.Now}, nil
}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command, o *string) {
	cmd.Flags().StringVarP(o, "output", "o", "", "json or yaml; without it a table")
}

// show is a command that prints objects.
func (c *cli) show(cmd *cobra.Command, do func(*cobra.Command, *plugin.Plugin, plugin.Output) error) *cobra.Command {
	var output string
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := plugin.Output(output)
		if err := o.Check(); err != nil {
			return err
		}
		p, err := c.plugin()
		if err != nil {
			return err
		}
		return do(cmd, p, o)
	}
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) list() *cobra.Command {
	var f plugin.VolumeFilter
	cmd := c.show(&cobra.Command{
		Use: "list", Aliases: []string{"volumes"},
		Short: "List volumes: where they are, how large, whose",
		Long:  "List volumes: where they are, how large, whose. With --namespace only those of the claims of that namespace.",
	}, func(cmd *cobra.Command, p *plugin.Plugin, o plugin.Output) error {
		f.Namespace = c.overrides.Context.Namespace
		return p.Volumes(cmd.Context(), f, o)
	})
	cmd.Flags().StringVar(&f.Node, "node", "", "only those on this node")
	cmd.Flags().StringVar(&f.Pool, "pool", "", "only those in pools of this name")
	cmd.Flags().StringVar(&f.Phase, "phase", "", "only those that are Pending, Ready, Failed, Retained, Trashed, Released or Deleting")
	return cmd
}

func (c *cli) nodes() *cobra.Command {
	return c.show(&cobra.Command{Use: "nodes", Short: "List the nodes that have pools, and what is wrong with them"},
		func(cmd *cobra.Command, p *plugin.Plugin, o plugin.Output) error { return p.Nodes(cmd.Context(), o) })
}

func (c *cli) pools() *cobra.Command {
	var node string
	cmd := c.show(&cobra.Command{Use: "pools", Short: "List the pools of each node: their room and their state"},
		func(cmd *cobra.Command, p *plugin.Plugin, o plugin.Output) error {
			return p.Pools(cmd.Context(), node, o)
		})
	cmd.Flags().StringVar(&node, "node", "", "only those of this node")
	return cmd
}

func (c *cli) snapshots() *cobra.Command {
	return c.show(&cobra.Command{Use: "snapshots", Short: "List snapshots: of what, where, how large"},
		func(cmd *cobra.Command, p *plugin.Plugin, o plugin.Output) error {
			return p.Snapshots(cmd.Context(), o)
		})
}

func (c *cli) adopt() *cobra.Command {
	var a plugin.Adoption
	var claim, output string
	cmd := &cobra.Command{
		Use:   "adopt VOLUME --claim [NAMESPACE/]NAME",
		Short: "Write the claim that takes a retained volume, with its data",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.Volume, a.Output = args[0], plugin.Output(output)
			if err := a.Output.Check(); err != nil {
				return err
			}
			namespace, name, both := strings.Cut(claim, "/")
			if !both {
				var err error
				if namespace, err = c.namespace(); err != nil {
					return err
				}
				name = claim
			}
			if namespace == "" || name == "" || strings.Contains(name, "/") {
				return fmt.Errorf("--claim %q is not NAMESPACE/NAME or NAME; it names the claim to write", claim)
			}
			a.Namespace, a.Claim = namespace, name
			p, err := c.plugin()
			if err != nil {
				return err
			}
			return p.Adopt(cmd.Context(), a)
		},
	}
	f := cmd.Flags()
	f.StringVar(&claim, "claim", "", "the claim to write: NAMESPACE/NAME, or NAME in the current namespace")
	f.StringVar(&a.Class, "class", "", "StorageClass of the claim; without it the class that the volume was made from")
	f.StringVar(&a.Size, "size", "", "size of the claim, as large as the volume or smaller")
	f.BoolVar(&a.AllowNamespace, "allow-namespace", false, "let the claim's namespace have a volume that was another's")
	f.BoolVar(&a.DryRun, "dry-run", false, "print the claim and change nothing")
	outputFlag(cmd, &output)
	require(cmd, "claim")
	return cmd
}

func (c *cli) undelete() *cobra.Command {
	return &cobra.Command{
		Use:   "undelete VOLUME",
		Short: "Take a volume out of the trash, and keep it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.plugin()
			if err != nil {
				return err
			}
			return p.Undelete(cmd.Context(), args[0])
		},
	}
}

func (c *cli) importDirectory() *cobra.Command {
	var i plugin.Import
	cmd := &cobra.Command{
		Use:   "import VOLUME --node NODE --pool POOL --from DIRECTORY --size SIZE",
		Short: "Make a volume of a directory that others made, in place",
		Long: "Make a volume of a directory that others made, in place: nothing is copied, and it is retained for a claim of the\n" +
			"current namespace, or that of --namespace, to adopt it. End the pods that use the directory, and delete its\n" +
			"PersistentVolume (reclaim policy Retain), first.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i.Volume = args[0]
			var err error
			if i.Namespace, err = c.namespace(); err != nil {
				return err
			}
			p, err := c.plugin()
			if err != nil {
				return err
			}
			return p.Import(cmd.Context(), i)
		},
	}
	f := cmd.Flags()
	f.StringVar(&i.Node, "node", "", "node that the directory is on")
	f.StringVar(&i.Pool, "pool", "", "pool with backend directory whose path holds it")
	f.StringVar(&i.From, "from", "", "the directory, below the pool's path")
	f.StringVar(&i.Size, "size", "", "size of the volume, at least what the directory holds")
	f.StringVar(&i.Type, "type", "csi", "csi, local or hostPath: as the class of the claim that is to have it")
	require(cmd, "node", "pool", "from", "size")
	return cmd
}

func (c *cli) release() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "release VOLUME --to DIRECTORY",
		Short: "Make a retained volume a plain directory again, in place",
		Long: "Make a retained volume a plain directory again, in place: it has no limit any more and is nothing of Plinth's,\n" +
			"and this cannot be taken back but by importing the directory.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.plugin()
			if err != nil {
				return err
			}
			return p.Release(cmd.Context(), args[0], to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "where it is to be, below the pool's path: where nothing is, or where it was imported from")
	require(cmd, "to")
	return cmd
}

// require has a command refuse to run without some of its flags.
func require(cmd *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := cmd.MarkFlagRequired(f); err != nil {
			panic(err) // there is that flag
		}
	}
}
