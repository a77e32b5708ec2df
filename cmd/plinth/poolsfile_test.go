package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/pool"
	"github.com/plinth-csi/plinth/driver/volume"
)

// TestPoolsFile: the pools follow the file, whether it is replaced beside the
// process or where only SIGHUP tells of it, and go on while it is broken.
func TestPoolsFile(t *testing.T) {
	for _, far := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind a symlink %t", far), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "pools.yaml")
			behind := name
			if far {
				behind = filepath.Join(t.TempDir(), "pools.yaml")
				if err := os.Symlink(behind, name); err != nil {
					t.Fatal(err)
				}
			}
			var lines []string
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(behind, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			add := func(pool string) {
				t.Helper()
				lines = append(lines, fmt.Sprintf("- {name: %s, path: %s, backend: memory, requireMount: false}", pool, t.TempDir()))
				write("pools:\n" + strings.Join(lines, "\n") + "\n")
			}
			add("one")
			f := &poolsFile{name: name}
			cfg, _, err := f.read()
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.DiscardHandler)
			pools, err := pool.Open(t.Context(), pool.Options{Config: cfg, Node: "n1", Backends: backends(run.Exec{}, slog.New(slog.DiscardHandler)), Log: log})
			if err != nil {
				t.Fatal(err)
			}
			defer pools.Close()
			ctx, stop := context.WithCancel(t.Context())
			told, done := make(chan struct{}, 10), make(chan struct{})
			add("two") // before anybody follows
			go func() {
				defer close(done)
				f.follow(ctx, pools, log, func() { told <- struct{}{} })
			}()
			await := func(states ...volume.PoolState) {
				t.Helper()
				for range told {
					var got []volume.PoolState
					for _, p := range pools.Pools(t.Context()) {
						got = append(got, p.State)
					}
					if fmt.Sprint(got) == fmt.Sprint(states) {
						return
					}
				}
			}
			hangup := func() {
				if far {
					if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
						t.Fatal(err)
					}
				}
			}
			await(volume.PoolReady, volume.PoolReady)
			add("three")
			hangup()
			await(volume.PoolReady, volume.PoolReady, volume.PoolReady)
			write("pools: [")
			hangup()
			await(volume.PoolUnavailable, volume.PoolReady, volume.PoolReady, volume.PoolReady)
			lines = lines[:2]
			add("four")
			hangup()
			await(volume.PoolReady, volume.PoolReady, volume.PoolReady)
			stop()
			<-done
		})
	}
}
