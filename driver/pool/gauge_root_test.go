//go:build root

package pool

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// TestGaugesOnDisk: what a volume holds is known of a subvolume, and of a
// filesystem in an image, mounted or not; of directories without limits only
// their size. Reading attaches nothing.
func TestGaugesOnDisk(t *testing.T) {
	const held = 16 << 20
	for _, c := range []struct {
		name, fs, kind, fsType string
		counted, inodes        bool
	}{
		{"btrfs", "btrfs", BackendBtrfs, "", true, false},
		{"ext4 in an image", "xfs", BackendImage, "ext4", true, true},
		{"xfs in an image", "ext4", BackendImage, "xfs", true, true},
		{"directories without limits", "ext4", BackendDirectory, "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := open(t, optionsOn(loopfs.New(t, loopfs.Options{Type: c.fs, Size: 2 << 30}), c.kind))
			gauge := m.Gauges()[0]
			read := func() VolumeReading {
				t.Helper()
				r := gauge.Read(t.Context())
				if r.Pool.State != volume.PoolReady || r.Pool.Free <= 0 || r.Pool.Free > r.Pool.Total || len(r.Volumes) != 1 {
					t.Fatalf("%+v", r)
				}
				return r.Volumes[0]
			}
			r := request("data", 320<<20)
			r.FSType = c.fsType
			v, err := m.Create(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if u := read().Usage; (u != nil) != c.counted || c.counted && u.UsedBytes >= u.TotalBytes {
				t.Errorf("empty, it holds %+v", u)
			}
			src, err := m.Attach(t.Context(), v.ID)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := m.Detach(context.Background(), v.ID); err != nil {
					t.Error(err)
				}
			})
			if u := read().Usage; c.inodes && u.TotalInodes != 0 {
				t.Errorf("attached and mounted nowhere, it has %+v", u)
			}
			dir := src.Dir
			if src.Device != "" {
				dir = t.TempDir()
				if err := mount.Device(src.Device, dir, src.FSType, nil); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := unix.Unmount(dir, 0); err != nil {
						t.Error(err)
					}
				})
			}
			f, err := os.Create(filepath.Join(dir, "file"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(make([]byte, held)); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := unix.Syncfs(int(f.Fd())); err != nil { // btrfs counts with its transactions
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			u := read().Usage
			if !c.counted {
				if u != nil {
					t.Errorf("it was counted: %+v", u)
				}
				return
			}
			if u.UsedBytes < held || u.UsedBytes > u.TotalBytes || (u.UsedInodes > 0) != c.inodes {
				t.Errorf("with %d bytes in it, it holds %+v", held, u)
			}
		})
	}
}
