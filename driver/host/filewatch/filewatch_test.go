package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestWatch: every way in which a file is replaced is told, and the watch ends
// with its context.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "pools.yaml")
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	version := func(v string) {
		must(os.Mkdir(filepath.Join(dir, ".."+v), 0o700), os.WriteFile(filepath.Join(dir, ".."+v, "pools.yaml"), []byte(v), 0o600),
			os.Symlink(".."+v, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("1") // as kubelet lays out a ConfigMap
	must(os.Symlink("..data/pools.yaml", name))
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 100)
	done := make(chan error)
	go func() {
		done <- Watch(ctx, name, func() {
			data, _ := os.ReadFile(name) // it is away for a moment
			told <- string(data)
		})
	}()
	await := func(want string) {
		t.Helper()
		for got := range told {
			if got == want {
				return
			}
		}
	}
	await("1")
	version("2")
	await("2")
	must(os.Remove(name), os.WriteFile(name+".new", []byte("3"), 0o600), os.Rename(name+".new", name))
	await("3")
	must(os.WriteFile(name, []byte("4"), 0o600))
	await("4")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Watch(t.Context(), filepath.Join(dir, "none", "file"), func() {}); err == nil {
		t.Error("a directory that is not there is watched")
	}
}
