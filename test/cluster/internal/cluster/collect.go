package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"

	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

// Collect copies all that helps to understand a failure into dir: logs, objects,
// events, and each machine's view of its mounts, disks and processes. What cannot
// be had is noted in dir/missing.txt, so that a broken cluster can be collected too.
func (c *Cluster) Collect(ctx context.Context, dir string) error {
	st, err := c.load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	missing := &notes{}
	var work errgroup.Group
	for _, m := range c.machines() {
		work.Go(func() error {
			to := filepath.Join(dir, m.Name)
			missing.add(copyLogs(c.logs(m), filepath.Join(to, "log")))
			missing.add(copyLogs(filepath.Join(c.root(m), "var/log/pods"), filepath.Join(to, "pods")))
			if st.Machines[m.Name].Init.Alive() {
				c.collectMachine(ctx, m, to, missing)
			}
			return nil
		})
	}
	work.Go(func() error {
		api, err := c.client(st)
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			err = collectObjects(ctx, api, filepath.Join(dir, "objects"), missing)
		}
		missing.add(err)
		return nil
	})
	work.Go(func() error {
		for name, argv := range map[string][]string{
			"dmesg.txt":   {"sh", "-c", "dmesg --ctime | tail -n 500"},
			"losetup.txt": {"losetup", "--list"},
		} {
			out, err := run.Output(ctx, argv...)
			missing.add(errors.Join(err, os.WriteFile(filepath.Join(dir, name), out, 0o644)))
		}
		return nil
	})
	missing.add(work.Wait())
	return missing.write(filepath.Join(dir, "missing.txt"))
}

// collectMachine asks the running machine m about itself.
func (c *Cluster) collectMachine(ctx context.Context, m plan.Machine, to string, missing *notes) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for name, argv := range map[string][]string{
		"mounts.txt":    {"cat", "/proc/self/mountinfo"},
		"df.txt":        {"df", "-h"},
		"processes.txt": {"ps", "-eo", "pid,ppid,stat,lstart,rss,args"},
		"routes.txt":    {"ip", "route"},
		"nftables.txt":  {"nft", "list", "ruleset"},
		"disks.txt":     {"ls", "-l", "/mnt/disks", "/mnt"},
	} {
		argv, err := c.Enter(m.Name, argv)
		if err != nil {
			missing.add(err)
			return
		}
		out, err := run.Output(ctx, argv...)
		missing.add(errors.Join(err, os.WriteFile(filepath.Join(to, name), out, 0o644)))
	}
}

// collectObjects writes every object of every kind, one file a kind and namespace.
func collectObjects(ctx context.Context, api *kube.Client, dir string, missing *notes) error {
	kinds, err := kube.Kinds(ctx, api)
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(8)
	for _, k := range kinds {
		if k.Resource == "secrets" {
			continue // a report may be passed on
		}
		work.Go(func() error {
			missing.add(writeKind(ctx, api, k, dir))
			return nil
		})
	}
	return work.Wait()
}

func writeKind(ctx context.Context, api *kube.Client, k kube.Kind, dir string) error {
	var list struct {
		Items []map[string]any `json:"items"`
	}
	if err := api.Get(ctx, k.Path(), &list); err != nil {
		return err
	}
	byNamespace := map[string]*bytes.Buffer{}
	for _, item := range list.Items {
		meta, _ := item["metadata"].(map[string]any)
		delete(meta, "managedFields")
		namespace, _ := meta["namespace"].(string)
		if namespace == "" {
			namespace = "_cluster"
		}
		raw, err := yaml.Marshal(item)
		if err != nil {
			return fmt.Errorf("%s: %w", k.Path(), err)
		}
		if byNamespace[namespace] == nil {
			byNamespace[namespace] = &bytes.Buffer{}
		}
		fmt.Fprintf(byNamespace[namespace], "---\n%s", raw)
	}
	for namespace, text := range byNamespace {
		at := filepath.Join(dir, namespace)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(at, k.File()), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyLogs copies the files below from. Absence is nil.
func copyLogs(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // rotated or removed meanwhile
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		at := to + strings.TrimPrefix(path, from)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		return copyFile(path, at)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// keepEvidence copies the logs of a cluster that could not be made to where the
// clean-up does not reach. It returns an error that says where.
func (c *Cluster) keepEvidence() error {
	if c.store == nil {
		return nil
	}
	dir, err := os.MkdirTemp("", c.Name+"-failed-up-")
	if err != nil {
		return err
	}
	for _, m := range c.machines() {
		err = errors.Join(err, copyLogs(c.logs(m), filepath.Join(dir, m.Name)))
	}
	return errors.Join(fmt.Errorf("the logs of the attempt are in %s", dir), err)
}

// notes gathers what could not be collected.
type notes struct {
	mu  sync.Mutex
	all []error
}

func (n *notes) add(err error) {
	if err == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, err)
}

func (n *notes) write(path string) error {
	if len(n.all) == 0 {
		return nil
	}
	return os.WriteFile(path, []byte(errors.Join(n.all...).Error()+"\n"), 0o644)
}
