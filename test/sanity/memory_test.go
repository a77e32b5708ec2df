package sanity

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver"
	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/memory"
	"github.com/plinth-csi/plinth/driver/pool"
	"github.com/plinth-csi/plinth/driver/volume"
)

func TestMain(m *testing.M) {
	Host()
	os.Exit(m.Run())
}

// TestMemory runs csi-sanity in process, with a mounter that mounts nothing.
func TestMemory(t *testing.T) {
	for _, access := range []string{"mount", "block"} {
		t.Run(access, func(t *testing.T) {
			t.Parallel()
			s := Suite{Address: serve(t), AccessType: access, Size: 1 << 30, ExpandTo: 2 << 30}
			groupLife(t, s)
			t.Logf("memory, %s: %s", access, Run(t, s))
		})
	}
}

// serve starts the driver over a memory pool and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	manager, err := pool.Open(t.Context(), pool.Options{
		Config: pool.Config{Pools: []pool.PoolConfig{{Name: "memory", Path: t.TempDir(), Backend: pool.BackendMemory, Overcommit: 1}}},
		Node:   "node-1",
		Log:    log,
		Backends: map[string]pool.OpenBackend{pool.BackendMemory: func(ctx context.Context, cfg pool.PoolConfig) (backend.Opened, error) {
			return memory.Open(ctx, memory.Options{Dir: cfg.Path})
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// A socket's path is short (unix(7)), a test's directory may not be.
	dir, err := os.MkdirTemp("", "plinth")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "unix://" + filepath.Join(dir, "csi.sock")
	server, err := driver.New(driver.Config{
		Name: "csi.plinth.dev", Version: "test", Node: "node-1", Endpoint: endpoint,
		Volumes: manager, Snapshots: manager, Groups: manager, Modifier: manager, Health: manager, Mounter: &mounter{volumes: manager, staged: map[volume.ID]string{}, published: map[string]volume.ID{}}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		manager.Close()
	})
	return endpoint
}

// mounter is a driver.Mounter that remembers what it was asked and makes
// target paths, but mounts nothing.
type mounter struct {
	volumes driver.Volumes

	mu        sync.Mutex
	staged    map[volume.ID]string
	published map[string]volume.ID
}

func (m *mounter) Get(ctx context.Context, id volume.ID) (volume.Volume, error) {
	return m.volumes.Get(ctx, id)
}

// PublishEphemeral is nothing that csi-sanity calls.
func (m *mounter) PublishEphemeral(context.Context, volume.ID, string, volume.Use, volume.Request) error {
	return volume.ErrUnsupported
}

func (m *mounter) Stage(ctx context.Context, id volume.ID, staging string, _ volume.Use) error {
	if _, err := m.volumes.Get(ctx, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged[id] = staging
	return nil
}

func (m *mounter) Unstage(_ context.Context, id volume.ID, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.staged, id)
	return nil
}

func (m *mounter) Publish(_ context.Context, id volume.ID, staging, target string, u volume.Use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.staged[id] != staging {
		return volume.ErrNotFound
	}
	if u.AccessMode == volume.ReadWriteOncePod {
		for other, holder := range m.published {
			if holder == id && other != target {
				return volume.ErrInUse
			}
		}
	}
	m.published[target] = id
	if u.Mode == volume.Block {
		return os.WriteFile(target, nil, 0o600)
	}
	return os.MkdirAll(target, 0o750)
}

func (m *mounter) Unpublish(_ context.Context, _ volume.ID, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.published, target)
	if err := os.Remove(target); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (m *mounter) Stats(ctx context.Context, id volume.ID, path string) (volume.Usage, error) {
	if err := m.at(id, path); err != nil {
		return volume.Usage{}, err
	}
	v, err := m.volumes.Get(ctx, id)
	return volume.Usage{TotalBytes: v.Size, AvailableBytes: v.Size}, err
}

func (m *mounter) Expand(ctx context.Context, id volume.ID, path string) (int64, error) {
	if err := m.at(id, path); err != nil {
		return 0, err
	}
	v, err := m.volumes.Get(ctx, id)
	return v.Size, err
}

func (m *mounter) at(id volume.ID, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.published[path] != id && m.staged[id] != path {
		return volume.ErrNotFound
	}
	return nil
}
