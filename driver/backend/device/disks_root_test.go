//go:build root

package device

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

const diskSize = 64 << 20

func openPool(t *testing.T, dir string, devices ...string) *Device {
	t.Helper()
	b, err := Open(t.Context(), Options{Dir: dir, Devices: devices})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func ensure(t *testing.T, b *Device, id volume.ID, mode volume.Mode) volume.Info {
	t.Helper()
	info, err := b.Ensure(t.Context(), volume.Spec{ID: id, Mode: mode, Size: diskSize})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if _, err := (run.Exec{}).Run(t.Context(), argv...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, disk string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, at)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestStrangersDisks: what is anybody's is not taken, stays as it is, and is
// shown.
func TestStrangersDisks(t *testing.T) {
	for _, c := range []struct {
		name, says string
		make       func(t *testing.T, disk string)
	}{
		{"filesystem", "it carries ext4", func(t *testing.T, disk string) { command(t, "mkfs.ext4", "-q", disk) }},
		{"swap", "it carries swap", func(t *testing.T, disk string) { command(t, "mkswap", disk) }},
		{"bytes at the start", "not blank", func(t *testing.T, disk string) { write(t, disk, 1000, []byte("x")) }},
		{"bytes at the end", "not blank", func(t *testing.T, disk string) { write(t, disk, diskSize-1, []byte("x")) }},
		{"mounted", "it is mounted at", func(t *testing.T, disk string) {
			command(t, "mkfs.ext4", "-q", disk)
			dir := t.TempDir()
			// Read-only, or the filesystem writes to it when it likes.
			if err := syscall.Mount(disk, dir, "ext4", syscall.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
		}},
		{"behind a loop device", "it is behind loop", func(t *testing.T, disk string) {
			f, err := os.OpenFile(disk, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := loop.Attach(f); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = errors.Join(loop.Detach(f), f.Close()) })
		}},
		{"another pool's", "another pool or another plinth", func(t *testing.T, disk string) {
			ensure(t, openPool(t, t.TempDir(), disk), "theirs", volume.Block)
		}},
		{"read-only", "read-only", func(t *testing.T, disk string) {
			command(t, "blockdev", "--setro", disk)
			t.Cleanup(func() { // it outlives what is behind the device
				if err := device.SetReadOnly(disk, false); err != nil {
					t.Error(err)
				}
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := loopfs.Disks(t, 1, diskSize)[0]
			c.make(t, disk)
			before := content64(t, disk)
			b := openPool(t, t.TempDir(), disk)
			if problems := b.Problems(t.Context()); len(problems) != 1 || !strings.Contains(problems[0], c.says) || !strings.Contains(problems[0], disk) {
				t.Errorf("problems are %q, want one that says %q of %s", problems, c.says, disk)
			}
			if space, err := b.Capacity(t.Context()); err != nil || space.Free != 0 || space.Total != 0 {
				t.Errorf("capacity is %+v, %v", space, err)
			}
			if _, err := b.Ensure(t.Context(), volume.Spec{ID: "v", Mode: volume.Block, Size: 1}); !errors.Is(err, volume.ErrNoCapacity) {
				t.Errorf("asked for a volume: %v", err)
			}
			if !bytes.Equal(before, content64(t, disk)) {
				t.Error("the disk was written to")
			}
		})
	}
}

func content64(t *testing.T, disk string) []byte {
	t.Helper()
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPoolsOverTheSameDisks: each disk goes to one volume of one pool.
func TestPoolsOverTheSameDisks(t *testing.T) {
	disks := loopfs.Disks(t, 4, diskSize)
	pools := []*Device{openPool(t, t.TempDir(), disks...), openPool(t, t.TempDir(), disks...)}
	var wg sync.WaitGroup
	for _, b := range pools {
		for _, id := range []volume.ID{"a", "b", "c"} {
			wg.Go(func() {
				_, err := b.Ensure(t.Context(), volume.Spec{ID: id, Mode: volume.Block, Size: 1})
				if err != nil && !errors.Is(err, volume.ErrNoCapacity) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	owners := map[string]volume.ID{}
	for _, b := range pools {
		infos, err := b.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			src, err := b.Attach(t.Context(), i.ID)
			if err != nil {
				t.Fatal(err)
			}
			if other, twice := owners[src.Device]; twice {
				t.Errorf("%s is of %s and of %s", src.Device, other, i.ID)
			}
			owners[src.Device] = i.ID
		}
	}
	if len(owners) == 0 {
		t.Error("nobody got a disk")
	}
}

// TestDiskUnderAnotherName: a volume finds its disk by what it is, and takes no
// other, nor one of two that say they are it.
func TestDiskUnderAnotherName(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	plug := func(size int64) string {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		d, err := loop.Attach(f)
		if err != nil {
			t.Fatal(err)
		}
		return d.Path
	}
	pull := func(name string) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(loop.Detach(f), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	b := openPool(t, t.TempDir(), plug(diskSize))
	t.Cleanup(func() { pull(name) })
	ensure(t, b, "v", volume.Block)
	src, err := b.Attach(t.Context(), "v")
	if err != nil {
		t.Fatal(err)
	}
	write(t, src.Device, 0, []byte("precious"))
	pull(name)
	_, err = b.Attach(t.Context(), "v")
	if !errors.Is(err, volume.ErrPoolUnavailable) {
		t.Errorf("without its disk: %v", err)
	}
	if problems := b.Problems(t.Context()); len(problems) == 0 || !strings.Contains(strings.Join(problems, " "), "volume v") {
		t.Errorf("without its disk the problems are %q", problems)
	}
	if info, err := b.Get(t.Context(), "v"); err != nil || info.Size != diskSize {
		t.Errorf("without its disk: %+v, %v", info, err)
	}
	// Others take its name in the meantime.
	others := loopfs.Disks(t, 2, diskSize)
	now := plug(diskSize)
	if now == src.Device {
		t.Fatalf("the disk has its old name %s; others have %q", now, others)
	}
	src, err = b.Attach(t.Context(), "v")
	if err != nil || src.Device != now || !bytes.HasPrefix(content64(t, now), []byte("precious")) {
		t.Errorf("attached is %+v (%v), its disk is %s", src, err, now)
	}
	pull(name)
	plug(diskSize / 2)
	if _, err = b.Attach(t.Context(), "v"); !errors.Is(err, volume.ErrPoolUnavailable) {
		t.Errorf("on a disk that shrank: %v", err)
	}
}

// TestHalfMade: a disk that a cut left half made is freed if all that is on it
// is ours, and else left alone.
func TestHalfMade(t *testing.T) {
	for _, c := range []struct {
		name   string
		before string // the operation that is cut
		after  func(t *testing.T, disk string)
		free   bool
	}{
		{"before the mark", "take", func(*testing.T, string) {}, true},
		{"before mkfs", "format", func(*testing.T, string) {}, true},
		{"after mkfs", "rename", func(*testing.T, string) {}, true},
		{"within mkfs", "format", func(t *testing.T, disk string) { write(t, disk, 4096, []byte("half a filesystem")) }, true},
		{"before the mark, then a stranger", "take", func(t *testing.T, disk string) { write(t, disk, 4096, []byte("raw data")) }, false},
		{"before mkfs, then a stranger", "format", func(t *testing.T, disk string) { command(t, "mkswap", "-q", disk) }, false},
		{"after mkfs, then a stranger", "rename", func(t *testing.T, disk string) { command(t, "mkfs.ext4", "-q", "-F", disk) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			const size = diskSize
			disk, dir := loopfs.Disks(t, 1, size)[0], t.TempDir()
			cut := errors.New("cut")
			b, err := Open(t.Context(), Options{Dir: dir, Devices: []string{disk}, step: func(operation string) error {
				if strings.HasPrefix(operation, c.before) {
					return cut
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Ensure(t.Context(), volume.Spec{ID: "v", Mode: volume.Filesystem, FSType: "ext4", Size: 1}); !errors.Is(err, cut) {
				t.Fatalf("not cut: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			c.after(t, disk)
			before := content64(t, disk)
			space, err := openPool(t, dir, disk).Capacity(t.Context())
			if err != nil || (space.Free == size) != c.free {
				t.Errorf("after opening: %+v, %v, want it free: %t", space, err, c.free)
			}
			if !c.free && !bytes.Equal(before, content64(t, disk)) {
				t.Error("a stranger's bytes were touched")
			}
		})
	}
}

// TestScrub: what was written is gone from the disk and from what is behind
// it, also if the scrub was stopped and began anew.
func TestScrub(t *testing.T) {
	disk, dir := loopfs.Disks(t, 1, diskSize)[0], t.TempDir()
	b := openPool(t, dir, disk)
	ensure(t, b, "v", volume.Block)
	secret := bytes.Repeat([]byte("secret"), 4<<20)
	write(t, disk, 8<<20, secret)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := b.Scrub(ended, "v"); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openPool(t, dir, disk)
	if space, err := b.Capacity(t.Context()); err != nil || space.Free != 0 {
		t.Errorf("free before it was scrubbed: %+v, %v", space, err)
	}
	if !bytes.Contains(content64(t, disk), []byte("secretsecret")) {
		t.Fatal("opening has scrubbed, which may take hours")
	}
	for range 2 {
		if err := b.Scrub(t.Context(), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(content64(t, disk), make([]byte, diskSize)) {
		t.Error("the disk does not read as zeros")
	}
	file, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(disk), "loop/backing_file"))
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(strings.TrimSpace(string(file)), &st); err != nil {
		t.Fatal(err)
	}
	if held := st.Blocks * 512; held > 4<<20 {
		t.Errorf("the file behind the disk still holds %d bytes", held)
	}
	if space, err := b.Capacity(t.Context()); err != nil || space.Free != diskSize {
		t.Errorf("scrubbed and not free: %+v, %v", space, err)
	}
}

// TestMkfsOptions: a disk is formatted as was chosen, and what may not be
// chosen is refused before a disk is touched.
func TestMkfsOptions(t *testing.T) {
	for fsType, c := range map[string]struct{ options, refused, dump []string }{
		"ext4": {[]string{"-I", "512"}, []string{"-d", "/etc"}, []string{"dumpe2fs", "-h"}},
		"xfs":  {[]string{"-m", "rmapbt=1"}, []string{"-N", "1024"}, []string{"xfs_db", "-r", "-c", "version"}},
	} {
		t.Run(fsType, func(t *testing.T) {
			disk := loopfs.Disks(t, 1, 320<<20)[0]
			b := openPool(t, t.TempDir(), disk)
			spec := volume.Spec{ID: "v", Mode: volume.Filesystem, FSType: fsType, Size: 300 << 20, MkfsOptions: c.refused}
			if _, err := b.Ensure(t.Context(), spec); !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("%q: %v", c.refused, err)
			}
			if space, err := b.Capacity(t.Context()); err != nil || space.Free != 320<<20 {
				t.Errorf("refused, and then free: %+v, %v", space, err)
			}
			spec.MkfsOptions = c.options
			for range 2 {
				if _, err := b.Ensure(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string]string{"ext4": "Inode size:\t          512\n", "xfs": "RMAPBT"}[fsType]
			out, err := (run.Exec{}).Run(t.Context(), append(c.dump, disk)...)
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("made with %q: %v\n%s", c.options, err, out)
			}
		})
	}
}
