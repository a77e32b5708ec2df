//go:build root

// Package standalone runs `plinth standalone` for tests.
package standalone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// BinaryEnv is where plinth is, for who cannot build it.
const BinaryEnv = "PLINTH_BINARY"

// startTimeout bounds how long plinth takes to answer.
const startTimeout = 30 * time.Second

// keptLog is how much of plinth's log is shown of a test that failed, in bytes.
const keptLog = 20000

// Plinth is `plinth standalone` over one pool.
type Plinth struct {
	Dir     string // for all but the pool
	Address string // of its socket, unix://…
	Cmd     *exec.Cmd
}

// New prepares plinth for a pool of that name and path, with more settings.
func New(t testing.TB, binary, name, path, settings string, flags ...string) *Plinth {
	t.Helper()
	dir, err := os.MkdirTemp("", "plinth") // a socket's path is short (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	pools := filepath.Join(dir, "pools.yaml")
	if err := os.WriteFile(pools, fmt.Appendf(nil, "pools:\n- {name: %s, path: %s, %s}\n", name, path, settings), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "unix://" + filepath.Join(dir, "csi.sock")
	args := []string{"standalone", "--node-name=node-1", "--pools-file=" + pools, "--endpoint=" + address, "--mounts-dir=" + filepath.Join(dir, "mounts")}
	return &Plinth{Dir: dir, Address: address, Cmd: exec.Command(binary, append(args, flags...)...)}
}

// Start returns once plinth answers. The test's end stops it, and fails if it
// does not stop orderly.
func (p *Plinth) Start(t testing.TB) *grpc.ClientConn {
	t.Helper()
	var log bytes.Buffer
	p.Cmd.Stdout, p.Cmd.Stderr = &log, &log
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Cmd.Process.Signal(syscall.SIGTERM), p.Cmd.Wait()); err != nil {
			t.Errorf("stop plinth: %v", err)
		}
		if t.Failed() {
			t.Logf("the end of plinth's log:\n%s", log.Bytes()[max(0, log.Len()-keptLog):])
		}
	})
	conn, err := grpc.NewClient(p.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nobody is left who would care
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if _, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("plinth does not answer: %v", err)
	}
	return conn
}
