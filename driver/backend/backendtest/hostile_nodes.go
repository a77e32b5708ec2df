package backendtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wholeEnv asks for a tree as wide and deep as it gets, not one that is quick.
const wholeEnv = "PLINTH_HOSTILE_WHOLE"

const (
	fewFiles, manyFiles = 200, 100000
	shallow, deep       = 150, 1000
	longName            = 40 // a path beyond PATH_MAX at either depth
	immutable           = 0x10
	appendOnly          = 0x20
)

// testHostileNodes removes, after a copy where the backend copies, what is no
// plain file, what its owner has locked, a tree that is deep, and one that is
// wide; one of its files is open while it is copied.
func testHostileNodes(t *testing.T, e *env) {
	s := e.spec("nodes")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	layNodes(t, c.dir)
	layWide(t, filepath.Join(c.dir, "wide"))
	layDeep(t, c.dir)
	open, err := os.Create(filepath.Join(c.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	e.done(t, s.ID, c)
	if e.Snapshots {
		copier := e.snapshotter(t)
		if _, err := copier.Snapshot(t.Context(), s.ID, "nodes", nil); err != nil {
			t.Errorf("Snapshot: %v", err)
		}
		again := e.spec("again")
		if _, err := copier.Restore(t.Context(), "nodes", again, nil); err != nil {
			t.Errorf("Restore: %v", err)
		}
		e.remove(t, again.ID)
		if err := copier.RemoveSnapshot(t.Context(), "nodes"); err != nil {
			t.Errorf("RemoveSnapshot: %v", err)
		}
	}
	// btrfs frees a subvolume when its last file is closed, and Remove waits.
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	e.remove(t, s.ID)
	e.requireIDs(t)
}

// layNodes puts device nodes, a socket, files that run as their owner, with
// attributes, and locked ones.
func layNodes(t *testing.T, dir string) {
	t.Helper()
	lay(t, filepath.Join(dir, "setuid"), false)
	lay(t, filepath.Join(dir, "locked/below"), true)
	lay(t, filepath.Join(dir, "appended"), false)
	for _, err := range []error{
		// As bind(2) leaves one, whose path may only have 107 bytes.
		unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0),
		unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 4095))),
		os.Chmod(filepath.Join(dir, "setuid"), 0o755|os.ModeSetuid|os.ModeSetgid),
		unix.Setxattr(filepath.Join(dir, "setuid"), "user.plinth", []byte("value"), 0),
		unix.Setxattr(filepath.Join(dir, "setuid"), "trusted.plinth.volume", []byte("ext4"), 0),
		setFlags(filepath.Join(dir, "appended"), appendOnly),
		setFlags(filepath.Join(dir, "locked/below/file"), immutable),
		setFlags(filepath.Join(dir, "locked/below"), immutable),
		setFlags(filepath.Join(dir, "locked"), appendOnly),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func setFlags(name string, flags int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags), f.Close())
}

func layWide(t *testing.T, dir string) {
	t.Helper()
	files := fewFiles
	if os.Getenv(wholeEnv) != "" {
		files = manyFiles
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("file-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// layDeep makes directories in one another, each below the one before.
func layDeep(t *testing.T, dir string) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(at) }() // the deepest
	name := strings.Repeat("d", longName)
	depth := shallow
	if os.Getenv(wholeEnv) != "" {
		depth = deep
	}
	for range depth {
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = next
	}
}
