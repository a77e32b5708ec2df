package main

import (
	"context"
	"log/slog"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/btrfs"
	"github.com/plinth-csi/plinth/driver/backend/device"
	"github.com/plinth-csi/plinth/driver/backend/directory"
	"github.com/plinth-csi/plinth/driver/backend/image"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/pool"
)

// backends are the ways in which a pool can keep its volumes.
func backends(runner run.Runner, log *slog.Logger) map[string]pool.OpenBackend {
	return map[string]pool.OpenBackend{
		pool.BackendBtrfs: func(ctx context.Context, c pool.PoolConfig) (backend.Opened, error) {
			return opened(btrfs.Open(ctx, btrfs.Options{Dir: c.Path}))
		},
		pool.BackendDirectory: func(ctx context.Context, c pool.PoolConfig) (backend.Opened, error) {
			return opened(directory.Open(ctx, directory.Options{Dir: c.Path, Quota: directory.Quota(c.Quota), Grace: c.QuotaGrace}))
		},
		pool.BackendImage: func(ctx context.Context, c pool.PoolConfig) (backend.Opened, error) {
			return opened(image.Open(ctx, image.Options{Dir: c.Path, Runner: runner}))
		},
		pool.BackendDevice: func(ctx context.Context, c pool.PoolConfig) (backend.Opened, error) {
			return opened(device.Open(ctx, device.Options{Dir: c.Path, Devices: c.Devices, Runner: runner, Log: log}))
		},
		pool.BackendMemory: func(ctx context.Context, c pool.PoolConfig) (backend.Opened, error) {
			return opened(memory.Open(ctx, memory.Options{Dir: c.Path}))
		},
	}
}

// opened keeps the nil pointer beside an error from becoming a backend.
func opened[B backend.Opened](b B, err error) (backend.Opened, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}
