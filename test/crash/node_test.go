//go:build root

package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/plinth-csi/plinth/driver/host/subvolume"
)

const poolName = "fast"

// startTimeout bounds how long `plinth standalone` takes to answer.
const startTimeout = 2 * time.Minute

// keptLines is how much of a process's log is kept for a failure.
const keptLines = 300

// node is a machine with one pool, whose process is started and killed.
type node struct {
	binary, dir, pool string // the pool's path; dir is for all else
	csi               *client
	running           *process
}

// newNode writes the pools file; settings are the pool's in it.
func newNode(binary, dir, pool, settings string) (*node, error) {
	text := fmt.Appendf(nil, "pools:\n- {name: %s, path: %s, %s}\n", poolName, pool, settings)
	return &node{binary: binary, dir: dir, pool: pool}, os.WriteFile(filepath.Join(dir, "pools.yaml"), text, 0o600)
}

// process is one life of plinth.
type process struct {
	cmd    *exec.Cmd
	pool   string
	dying  atomic.Bool // it is being ended
	ended  chan struct{}
	mu     sync.Mutex
	lines  []string
	logged atomic.Int64  // lines so far
	line   chan struct{} // one more
}

// launch starts the process without waiting for it to answer.
func (n *node) launch() error {
	endpoint := "unix://" + filepath.Join(n.dir, "csi.sock")
	p := &process{pool: n.pool, ended: make(chan struct{}), line: make(chan struct{}, 1)}
	p.cmd = exec.Command(n.binary, "standalone", "--node-name=node-1", "--debug", "--pools-file="+filepath.Join(n.dir, "pools.yaml"),
		"--endpoint="+endpoint, "--mounts-dir="+filepath.Join(n.dir, "mounts"))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := errors.Join(p.cmd.Start(), w.Close()); err != nil {
		return errors.Join(err, r.Close())
	}
	go p.read(r)
	go func() {
		_ = p.cmd.Wait() // killed, or its log says why
		p.dying.Store(true)
		close(p.ended)
	}()
	if n.csi != nil {
		if err := n.csi.conn.Close(); err != nil {
			return err
		}
	}
	n.running = p
	n.csi, err = dial(endpoint)
	return err
}

// answers waits until the process does.
func (n *node) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	go func() {
		select {
		case <-n.running.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := n.csi.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	if err != nil && n.running.dying.Load() {
		return errCut
	}
	return err
}

// cut reports whether an error is what is left of a process that was killed.
func (n *node) cut(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.Unknown:
	default:
		return false
	}
	select {
	case <-n.running.ended:
	case <-time.After(5 * time.Second): // it lives: its own answer
		return n.running.dying.Load()
	}
	return true
}

func (p *process) read(r *os.File) {
	defer r.Close()
	for s := bufio.NewScanner(r); s.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		if len(p.lines) > 2*keptLines {
			p.lines = slices.Clone(p.lines[keptLines:])
		}
		p.mu.Unlock()
		p.logged.Add(1)
		select {
		case p.line <- struct{}{}:
		default:
		}
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-keptLines):], "\n")
}

// kill ends the process as nothing can be caught, and waits for its end.
func (p *process) kill() {
	p.dying.Store(true)
	_ = p.cmd.Process.Kill() // gone already is as good
	for {
		select {
		case <-p.ended:
			return
		case <-time.After(100 * time.Millisecond):
			// It may wait for a transaction of btrfs that nobody asks for again
			// now (subvolume.Commit).
			if f, err := os.Open(p.pool); err == nil {
				_ = subvolume.Commit(f)
				_ = f.Close()
			}
		}
	}
}

// stop ends the process in order.
func (n *node) stop() error {
	if n.running == nil {
		return nil
	}
	p := n.running
	p.dying.Store(true)
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-p.ended:
	case <-time.After(startTimeout):
		p.kill()
		err = errors.New("it did not end when it was asked to")
	}
	n.running = nil
	err = errors.Join(err, n.csi.conn.Close())
	n.csi = nil
	return err
}
