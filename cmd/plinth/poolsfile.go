package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/plinth-csi/plinth/driver/host/filewatch"
	"github.com/plinth-csi/plinth/driver/pool"
)

// poolsFile is the file with the pools of this node, and what was last read of it.
type poolsFile struct {
	name string
	data []byte
	err  string
}

// read reads the file; changed is false if it is as it was the last time.
func (f *poolsFile) read() (cfg pool.Config, changed bool, err error) {
	data, err := os.ReadFile(f.name)
	if err != nil {
		err = fmt.Errorf("pools file: %w", err)
	} else if cfg, err = pool.ParseConfig(data); err != nil {
		err = fmt.Errorf("%s: %w", f.name, err)
	}
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	changed = fault != f.err || err == nil && !bytes.Equal(data, f.data)
	f.err = fault
	if err == nil {
		f.data = data
	}
	return cfg, changed, err
}

// follow gives every change of the file to the pools, and calls told after it,
// until the context ends. A file that cannot be read changes nothing but what
// is said of it. SIGHUP reads the file, too.
func (f *poolsFile) follow(ctx context.Context, pools *pool.Manager, log *slog.Logger, told func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	maybe := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := filewatch.Watch(ctx, f.name, func() {
			select {
			case maybe <- struct{}{}:
			default:
			}
		})
		if err != nil { // a limit of this machine (inotify(7)) need not stop the volumes
			log.Error("changes of the pools file go unnoticed until SIGHUP or a restart", "error", err.Error())
		}
	}()
	defer func() { <-done }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		case <-maybe:
		}
		cfg, changed, err := f.read()
		switch {
		case !changed:
			continue
		case err != nil:
			pools.ReloadFailed(err)
		default:
			pools.Reload(ctx, cfg)
		}
		told()
	}
}
