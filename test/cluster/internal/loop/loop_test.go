//go:build root

package loop

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-euc", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func file(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(200 << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

func attach1(t *testing.T, path string) string {
	t.Helper()
	dev, err := Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func TestAttachIsIdempotent(t *testing.T) {
	path := file(t, filepath.Join(t.TempDir(), "disk"))
	dev := attach1(t, path)
	if again := attach1(t, path); again != dev {
		t.Errorf("attached to %s, then to %s", dev, again)
	}
	for range 2 { // the second finds nothing to do
		if err := DetachAll(t.Context(), []string{path}); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := Family([]string{path}); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Nodes that boot together all plug the shared disk in.
func TestAttachedOnceByMany(t *testing.T) {
	path := file(t, filepath.Join(t.TempDir(), "disk"))
	t.Cleanup(func() {
		if err := DetachAll(context.Background(), []string{path}); err != nil {
			t.Error(err)
		}
	})
	devices := make([]string, 16)
	errs := make([]error, len(devices))
	var wg sync.WaitGroup
	for i := range devices {
		wg.Go(func() { devices[i], errs[i] = Attach(path) })
	}
	wg.Wait()
	for i, dev := range devices {
		if errs[i] != nil || dev != devices[0] {
			t.Errorf("attached to %s and to %s (%v)", devices[0], dev, errs[i])
		}
	}
}

// An image that was made in a machine's own folder goes with the machine; the
// machine's disks are no images, and other folders are none of its business.
func TestFilesBelow(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	disk, image := file(t, filepath.Join(dir, "disk")), file(t, filepath.Join(dir, "deep", "image"))
	all := []string{disk, image, file(t, filepath.Join(other, "image"))}
	t.Cleanup(func() {
		if err := DetachAll(context.Background(), all); err != nil {
			t.Error(err)
		}
	})
	for _, path := range all {
		attach1(t, path)
	}
	file(t, filepath.Join(dir, "idle"))
	if found, err := FilesBelow(dir, []string{disk}); err != nil || len(found) != 1 || found[0] != image {
		t.Errorf("%v, %v; want %s", found, err, image)
	}
	if found, err := FilesBelow(filepath.Join(dir, "none"), nil); err != nil || found != nil {
		t.Errorf("in a folder that is not there: %v, %v", found, err)
	}
}

// A pool that holds volume images, two deep, and whose mounts are gone, as after
// the kill of a node.
func TestDetachAllFindsWhatStandsOnADisk(t *testing.T) {
	for fs, mkdir := range map[string]string{
		"ext4":  "mkdir",
		"xfs":   "mkdir",
		"btrfs": "btrfs subvolume create",
	} {
		t.Run(fs, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(600 << 20); err != nil {
				t.Fatal(err)
			}
			f.Close()
			dev := attach1(t, path)
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := DetachAll(ctx, []string{path}); err != nil {
					t.Error(err)
				}
			})
			sh(t, "mkfs."+fs+" -q "+dev+"; mkdir "+dir+"/mnt "+dir+"/inner; mount "+dev+" "+dir+"/mnt; "+mkdir+" "+dir+"/mnt/sub")
			outer := attach1(t, file(t, dir+"/mnt/sub/volume"))
			sh(t, "mkfs.ext4 -q "+outer+"; mount "+outer+" "+dir+"/inner")
			inner := attach1(t, file(t, dir+"/inner/nested"))
			sh(t, "umount --lazy "+dir+"/inner; umount --lazy "+dir+"/mnt")

			stranger := file(t, filepath.Join(dir, "stranger"))
			attach1(t, stranger)
			defer func() {
				if err := DetachAll(t.Context(), []string{stranger}); err != nil {
					t.Error(err)
				}
			}()

			family, err := Family([]string{path})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range family {
				got = append(got, d.Path)
			}
			want := []string{dev, outer, inner}
			if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
				t.Fatalf("the family of %s is %v, want %v", path, got, want)
			}
			if err := DetachAll(t.Context(), []string{path}); err != nil {
				t.Fatal(err)
			}
			if left, err := Family([]string{path}); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if kept, err := Family([]string{stranger}); err != nil || len(kept) != 1 {
				t.Errorf("the stranger is %v, %v", kept, err)
			}
		})
	}
}
