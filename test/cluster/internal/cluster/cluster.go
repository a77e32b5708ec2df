// Package cluster makes, changes and ends whole clusters out of machines.
//
// Whatever is made is recorded first and can be found again by its recorded
// name, so that a process killed at any moment leaves nothing that a later one
// cannot finish or undo.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/kube"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
	"github.com/plinth-csi/plinth/test/cluster/internal/tools"
)

// Home is where clusters live unless told otherwise.
const Home = "/var/lib/plinth-cluster"

// ErrNone is returned where a cluster is needed and there is none.
var ErrNone = errors.New("there is no such cluster")

// Cluster is a name and a folder, whether or not something lives there.
type Cluster struct {
	Name  string
	Dir   string
	Cache tools.Cache
	Log   *Log

	store *state.Store
}

// New returns the cluster called name in dir; empty: below Home.
func New(name, dir string, log *Log) (*Cluster, error) {
	if err := (plan.Options{Name: name, Nodes: 1}).Validate(); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = filepath.Join(Home, name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cache, err := tools.Locate()
	return &Cluster{Name: name, Dir: dir, Cache: cache, Log: log}, err
}

// Kubeconfig is the path of the host's client configuration.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

func (c *Cluster) pki() string                      { return filepath.Join(c.Dir, "pki") }
func (c *Cluster) machineDir(m plan.Machine) string { return filepath.Join(c.Dir, "machines", m.Name) }
func (c *Cluster) root(m plan.Machine) string       { return filepath.Join(c.machineDir(m), "root") }
func (c *Cluster) logs(m plan.Machine) string       { return filepath.Join(c.machineDir(m), "log") }

// load reads the state of the cluster, which must be there.
func (c *Cluster) load() (state.State, error) {
	if !state.Exists(c.Dir) {
		return state.State{}, fmt.Errorf("cluster %s in %s: %w", c.Name, c.Dir, ErrNone)
	}
	store, err := state.Open(c.Dir)
	if err != nil {
		return state.State{}, err
	}
	st := store.Get()
	if st.Options.Name != c.Name {
		return state.State{}, fmt.Errorf("%s holds the cluster %s, not %s", c.Dir, st.Options.Name, c.Name)
	}
	c.store = store
	return st, nil
}

// locked runs work while no other process works on the cluster.
func (c *Cluster) locked(ctx context.Context, work func(context.Context) error) error {
	lock, err := state.Acquire(ctx, c.Dir, func() { c.Log.Printf("waiting for another process that works on cluster %s", c.Name) })
	if err != nil {
		return err
	}
	err = work(ctx)
	if !state.Exists(c.Dir) {
		err = errors.Join(err, lock.Remove())
		if filepath.Dir(c.Dir) == Home {
			_ = os.Remove(Home) // fails while there are other clusters
		}
		return err
	}
	return errors.Join(err, lock.Release())
}

// client returns a client of the running cluster.
func (c *Cluster) client(st state.State) (*kube.Client, error) {
	a, err := kube.LoadAuthorities(c.pki())
	if err != nil {
		return nil, err
	}
	return kube.NewClient(a, st.Port)
}

// Log prints what takes long, with the time since the start.
type Log struct {
	out   *os.File
	began time.Time
}

// NewLog returns a log that writes to out.
func NewLog(out *os.File) *Log { return &Log{out: out, began: time.Now()} }

// Printf writes one line.
func (l *Log) Printf(format string, args ...any) {
	fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}
