package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLocksHoldBetweenDescriptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	a, b := open(), open()
	key := Key("volume")
	if err := Try(a, key); err != nil {
		t.Fatal(err)
	}
	if err := Try(b, key); !errors.Is(err, ErrHeld) {
		t.Fatalf("second holder: %v, want ErrHeld", err)
	}
	if err := Try(b, Whole); err != nil {
		t.Fatalf("another byte: %v", err)
	}
	if err := Unlock(a, key); err != nil {
		t.Fatal(err)
	}
	if err := Wait(b, key); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Try(a, key); err != nil {
		t.Fatalf("after the holder closed its file: %v", err)
	}
}

func TestSharedLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files []*os.File
	for range 3 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	if err := errors.Join(WaitShared(files[0], Opening), WaitShared(files[1], Opening)); err != nil {
		t.Fatal(err)
	}
	if err := Try(files[2], Opening); !errors.Is(err, ErrHeld) {
		t.Errorf("a writer beside readers: %v", err)
	}
	if err := errors.Join(Unlock(files[0], Opening), Unlock(files[1], Opening), Try(files[2], Opening)); err != nil {
		t.Error(err)
	}
}

func TestKeyIsBehindWhole(t *testing.T) {
	for _, name := range []string{"", "a", "pvc-1", "pvc-2"} {
		if Key(name) <= Opening {
			t.Errorf("Key(%q) = %d", name, Key(name))
		}
	}
}

// TestCloseEndsLocks: also those of a file that a child process has as well.
func TestCloseEndsLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files []*os.File
	for range 2 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	if err := errors.Join(Try(files[0], Whole), Try(files[0], Key("volume"))); err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(files[0].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := errors.Join(Close(files[0]), Try(files[1], Whole), Try(files[1], Key("volume"))); err != nil {
		t.Error(err)
	}
}
