package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"

	"github.com/plinth-csi/plinth/cmd/process"
	"github.com/plinth-csi/plinth/provisioner/keeptime"
	"github.com/plinth-csi/plinth/provisioner/schedule"
)

// Exit codes. A Job need not try again what exits with exitUsage.
const (
	exitFailed = 1
	exitUsage  = 2
)

func exitCode(err error) int {
	if errors.Is(err, schedule.ErrInvalid) {
		return exitUsage
	}
	return exitFailed
}

// snapshotConfig is the flags of `plinth snapshot`.
type snapshotConfig struct {
	schedule                 schedule.Config
	keepFor, job, kubeconfig string
}

func newSnapshotCommand() *cobra.Command {
	var c snapshotConfig
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "One run of a schedule: take a snapshot of each claim that a selector finds, and delete those that are over",
		Long: `One run of a schedule: take a VolumeSnapshot of each claim that a selector finds,
wait until they are ready, and delete those of the schedule that are too many or
too old. It is what the CronJobs of a schedule run (docs/operations.md).

Exit codes: 0, all is done; 1, something failed, which the log tells claim by
claim; 2, the flags are wrong, and to try again is of no use.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSnapshot(cmd.Context(), c) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", schedule.ErrInvalid, err) })
	f := cmd.Flags()
	s := &c.schedule
	f.StringVar(&s.Name, "schedule", "", "name of the schedule: a DNS label, and the only one of that name in its namespaces")
	f.StringVar(&s.Driver, "driver-name", process.DefaultDriver, "name of the CSI driver; claims of others are left alone")
	f.StringSliceVar(&s.Namespaces, "namespace", nil, "namespaces of the claims, separated by commas")
	f.BoolVar(&s.AllNamespaces, "all-namespaces", false, "claims of all namespaces")
	f.StringVar(&s.Selector, "selector", "", "label selector of the claims, such as app=db")
	f.StringVar(&s.Class, "snapshot-class", "", "the VolumeSnapshotClass; without it the cluster's default for the driver")
	f.IntVar(&s.Keep, "keep", 0, "how many snapshots of a claim stay, at least 1")
	f.StringVar(&c.keepFor, "keep-for", "", "how long snapshots stay, such as 12h or 7d; without it for ever. The newest always stays")
	f.DurationVar(&s.Timeout, "timeout", 10*time.Minute, "how long to wait for what is made")
	f.StringVar(&s.CopyWith, "copy-with", "", "CronJob in the claim's namespace, suspended, whose Job copies each snapshot: its ephemeral volumes that start with a VolumeSnapshot start with that one")
	f.StringVar(&c.job, "job", "", "NAMESPACE/NAME of the Job of this run: its tries share one time and so one snapshot")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; without it, as a pod")
	return cmd
}

func runSnapshot(ctx context.Context, c snapshotConfig) error {
	cfg := c.schedule
	cfg.Log = process.NewLog(false)
	klog.SetSlogLogger(cfg.Log)
	if c.keepFor != "" {
		var err error
		if cfg.KeepFor, err = keeptime.Parse(c.keepFor); err != nil {
			return fmt.Errorf("%w: --keep-for: %w", schedule.ErrInvalid, err)
		}
	}
	if c.job != "" {
		var both bool
		if cfg.JobNamespace, cfg.Job, both = strings.Cut(c.job, "/"); !both {
			return fmt.Errorf("%w: --job %q is not NAMESPACE/NAME", schedule.ErrInvalid, c.job)
		}
	}
	rest, err := process.KubeConfig(c.kubeconfig, "plinth-snapshot/"+version)
	if err != nil {
		return err
	}
	rest.QPS = -1 // the API server's fairness is the limit
	if cfg.Client, err = dynamic.NewForConfig(rest); err != nil {
		return fmt.Errorf("client of the API server: %w", err)
	}
	s, err := schedule.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
