//go:build root

package pool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/btrfs"
	"github.com/plinth-csi/plinth/driver/backend/directory"
	"github.com/plinth-csi/plinth/driver/backend/image"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// realBackends are the backends over filesystems of this machine. A kernel
// without project quotas keeps directories without a limit.
func realBackends() map[string]OpenBackend {
	return map[string]OpenBackend{
		BackendBtrfs: func(ctx context.Context, c PoolConfig) (backend.Opened, error) {
			return btrfs.Open(ctx, btrfs.Options{Dir: c.Path})
		},
		BackendDirectory: func(ctx context.Context, c PoolConfig) (backend.Opened, error) {
			return directory.Open(ctx, directory.Options{Dir: c.Path, Quota: directory.Quota(c.Quota)})
		},
		BackendImage: func(ctx context.Context, c PoolConfig) (backend.Opened, error) {
			return image.Open(ctx, image.Options{Dir: c.Path, Runner: run.Exec{}})
		},
	}
}

// realOptions are one pool over a filesystem on a loop device.
func realOptions(t testing.TB, fs, kind string) Options {
	return optionsOn(loopfs.New(t, loopfs.Options{Type: fs, Size: 64 << 30}), kind)
}

// optionsOn are one pool over a filesystem.
func optionsOn(on loopfs.FS, kind string) Options {
	o := testOptions(on.Dir)
	o.Backends = realBackends()
	o.Config.Pools[0].Backend = kind
	if kind == BackendDirectory {
		o.Config.Pools[0].Quota = QuotaNone
	}
	return o
}

// flushes is how often a device has been told to flush what it caches
// (Documentation/block/stat.rst): the price of durability, whatever else the
// machine does.
func flushes(b *testing.B, device string) float64 {
	b.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.Fields(string(data))[15], 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkCreate makes a volume, and BenchmarkStatus reads the state of a
// pool, beside many others.
func BenchmarkCreate(b *testing.B) {
	benchmark(b, func(b *testing.B, m *Manager, r volume.Request, device string) {
		before := flushes(b, device)
		for i := range b.N {
			r.Name = fmt.Sprintf("v-%d-%d", b.N, i)
			if _, err := m.Create(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric((flushes(b, device)-before)/float64(b.N), "flushes/op")
		for i := range b.N {
			if err := m.Delete(b.Context(), volume.ID(fmt.Sprintf("v-%d-%d", b.N, i))); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	})
}

func BenchmarkStatus(b *testing.B) {
	benchmark(b, func(b *testing.B, m *Manager, _ volume.Request, _ string) {
		for range b.N {
			m.Pools(b.Context())
		}
	})
}

func benchmark(b *testing.B, run func(*testing.B, *Manager, volume.Request, string)) {
	for _, c := range []struct{ fs, kind string }{
		{"btrfs", BackendBtrfs}, {"ext4", BackendDirectory}, {"ext4", BackendImage}, {"xfs", BackendImage},
	} {
		for _, n := range []int{10, 1000} {
			b.Run(fmt.Sprintf("%s-%s/%d", c.kind, c.fs, n), func(b *testing.B) {
				fs := loopfs.New(b, loopfs.Options{Type: c.fs, Size: 64 << 30})
				m, err := Open(b.Context(), optionsOn(fs, c.kind))
				if err != nil {
					b.Fatal(err)
				}
				defer m.Close()
				r := request("", 16<<20)
				if c.kind == BackendImage {
					r.Mode = volume.Block // without the time of mkfs
				}
				for i := range n {
					r.Name = fmt.Sprint("there-", i)
					if _, err := m.Create(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
				b.ResetTimer()
				run(b, m, r, fs.Device)
			})
		}
	}
}
