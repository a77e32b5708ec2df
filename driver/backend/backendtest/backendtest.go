// Package backendtest is the suite that every backend passes. A backend's own
// test describes itself by a Harness and calls Run; nothing in the suite knows
// which backend it is looking at.
package backendtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Pool is an empty pool, on a filesystem of its own where the backend needs
// one, that goes away when the test ends.
type Pool struct {
	Dir  string
	Open func() (backend.Opened, error) // may be called again, after Close or without: a reopened pool
	// OpenCut opens it so that step is asked before each operation on the
	// machine; nil where the backend has no seam for that.
	OpenCut func(step func(operation string) error) (backend.Opened, error)
}

// Harness describes one backend to the suite.
type Harness struct {
	New func(t *testing.T) Pool
	// Spec is the kind of volume to test: Mode, FSType, Thick and a Size
	// (bytes) at which the pool holds at least four. ID is set by the suite.
	Spec volume.Spec
	// Enforced says that a volume cannot outgrow its size.
	Enforced bool
	// Overhead is how many bytes beyond its size a full volume may hold, and
	// how far the free space may stay below what it was after a removal.
	Overhead int64
	// HalfMade are paths below the pool that a cut may leave, and opening
	// removes: a trailing slash makes a directory with a file in it.
	HalfMade []string
	// Unsupported are specs that Ensure answers with ErrUnsupported, and
	// OutOfRange ones that it answers with ErrOutOfRange.
	Unsupported, OutOfRange []volume.Spec
	// Trees says that volumes are directories in the pool, so that a hostile
	// owner's tree is the backend's to remove.
	Trees bool
	// Snapshots says that the backend is a backend.Snapshotter.
	Snapshots bool
	// Freezes says that it is a backend.Freezer which can where the pool is.
	Freezes bool
	// CopiesIdle says that a volume in use is not copied: ErrInUse.
	CopiesIdle bool
	// Thick says that all of a volume is allocated when it is made.
	Thick bool
	// Scrubs is the device below the pool, on which nothing of a scrubbed
	// volume may be found; nil where the backend is no backend.Scrubber.
	Scrubs func(t *testing.T, p Pool) string
	// Cuts says that pools have OpenCut.
	Cuts bool
	// Grow makes the disk of a volume larger, in bytes, where a volume is a
	// whole disk and grows only with it; nil is elsewhere.
	Grow func(t *testing.T, p Pool, id volume.ID, size int64)
}

// Run runs the suite; each test has a pool of its own and ends with a check
// that what is on disk is what the backend lists and nothing more.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, e *env)
		only func(h Harness) bool // nil is always
	}{
		{"EnsureIsIdempotent", testEnsureIdempotent, nil},
		{"EnsureRefuses", testEnsureRefuses, nil},
		{"RootDirectory", testRootDirectory, func(h Harness) bool { return h.Spec.Mode == volume.Filesystem }},
		{"GrowKeepsData", testGrow, nil},
		{"GrowWhileInUse", testGrowInUse, nil},
		{"LimitHolds", testLimit, func(h Harness) bool { return h.Enforced }},
		{"GrowRaisesTheLimit", testGrowRaises, func(h Harness) bool { return h.Enforced && h.Trees }},
		{"SparseFile", testSparse, limitedFiles},
		{"ManySmallFiles", testManyFiles, limitedFiles},
		{"LinksAndRenames", testLinks, limitedFiles},
		{"GrowUnderWriter", testGrowUnderWriter, limitedFiles},
		{"RemoveFreesBytes", testRemoveFrees, nil},
		{"RemoveInUse", testRemoveInUse, nil},
		{"Absent", testAbsent, nil},
		{"Reopen", testReopen, nil},
		{"UnfinishedWork", testUnfinished, nil},
		{"UnknownFiles", testUnknown, nil},
		{"Symlinks", testSymlinks, nil},
		{"HostileTree", testHostileTree, func(h Harness) bool { return h.Trees }},
		{"HostileNodes", testHostileNodes, func(h Harness) bool { return h.Trees }},
		{"MountBelow", testMountBelow, func(h Harness) bool { return h.Trees }},
		{"CutAtEveryStep", testCuts, func(h Harness) bool { return h.Cuts }},
		{"Concurrent", testConcurrent, nil},
		{"ThickIsAllocated", testThick, func(h Harness) bool { return h.Thick }},
		{"ScrubLeavesNothing", testScrub, func(h Harness) bool { return h.Scrubs != nil }},
		{"UsageIsOfThisVolumeAlone", testUsage, nil},
		{"AttachIsIdempotent", testAttach, nil},
		{"SnapshotAndRestore", testSnapshotAndRestore, func(h Harness) bool { return h.Snapshots }},
		{"Clone", testClone, func(h Harness) bool { return h.Snapshots }},
		{"SnapshotFreesBytes", testSnapshotFrees, func(h Harness) bool { return h.Snapshots }},
		{"Capture", testCapture, func(h Harness) bool { return h.Freezes }},
		{"SnapshotCutAtEveryStep", testSnapshotCuts, func(h Harness) bool { return h.Snapshots && h.Cuts }},
	} {
		if c.only != nil && !c.only(h) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			e := &env{Harness: h, pool: h.New(t)}
			e.b = e.open(t)
			t.Cleanup(func() { e.cleanup(t) })
			c.test(t, e)
			if !t.Failed() && !t.Skipped() {
				e.checkInvariants(t)
			}
		})
	}
}

// env is one test's pool and what is open on it.
type env struct {
	Harness
	pool Pool
	b    backend.Opened
	// strangers are names that the test put in volumes/ and that must stay.
	strangers []string
}

func (e *env) open(t *testing.T) backend.Opened {
	t.Helper()
	b, err := e.pool.Open()
	if err != nil {
		t.Fatalf("open the pool: %v", err)
	}
	return b
}

// reopen stands for a restart of the process.
func (e *env) reopen(t *testing.T) {
	t.Helper()
	if err := e.b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	e.b = e.open(t)
}

// cleanup detaches what a failed test left, so that its filesystem can go.
func (e *env) cleanup(t *testing.T) {
	infos, err := e.b.List(t.Context())
	if err != nil {
		infos, err = e.b.List(background())
	}
	for _, i := range infos {
		err = errors.Join(err, e.b.Detach(background(), i.ID))
	}
	if err := errors.Join(err, e.b.Close()); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

func (e *env) spec(id volume.ID) volume.Spec {
	s := e.Spec
	s.ID = id
	return s
}

func (e *env) ensure(t *testing.T, s volume.Spec) volume.Info {
	t.Helper()
	info, err := e.b.Ensure(t.Context(), s)
	if err != nil {
		t.Fatalf("Ensure: %v", err)
	}
	if info.ID != s.ID {
		t.Fatalf("Ensure of %s says %+v", s.ID, info)
	}
	if e.Enforced && info.Size != s.Size {
		t.Fatalf("Ensure of %d bytes says %+v", s.Size, info)
	}
	return info
}

// grow makes a volume larger.
func (e *env) grow(t *testing.T, s volume.Spec) {
	t.Helper()
	e.makeRoom(t, s)
	e.ensure(t, s)
}

// makeRoom is what must happen before a volume can grow.
func (e *env) makeRoom(t *testing.T, s volume.Spec) {
	t.Helper()
	if e.Grow != nil {
		e.Grow(t, e.pool, s.ID, s.Size)
	}
}

func (e *env) remove(t *testing.T, id volume.ID) {
	t.Helper()
	if err := e.b.Remove(t.Context(), id); err != nil {
		t.Fatalf("Remove: %v", err)
	}
}

func (e *env) requireIDs(t *testing.T, want ...volume.ID) {
	t.Helper()
	infos, err := e.b.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	got := []string{}
	for _, i := range infos {
		got = append(got, string(i.ID))
	}
	sort.Strings(got)
	wanted := []string{}
	for _, id := range want {
		wanted = append(wanted, string(id))
	}
	sort.Strings(wanted)
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Fatalf("List says %v, want %v", got, wanted)
	}
}

func requireError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// checkInvariants compares the disk, the list and the kernel.
func (e *env) checkInvariants(t *testing.T) {
	t.Helper()
	infos, err := e.b.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	listed := map[string]bool{}
	for _, i := range infos {
		listed[string(i.ID)] = true
	}
	for _, s := range e.strangers {
		if _, err := os.Lstat(filepath.Join(e.pool.Dir, "volumes", s)); err != nil {
			t.Errorf("an unknown file was touched: %v", err)
		}
		listed[bare(s)] = true
	}
	for _, name := range names(t, filepath.Join(e.pool.Dir, "volumes")) {
		id := bare(name)
		if !listed[id] {
			t.Errorf("volumes/%s is on disk but in no list", name)
		}
		delete(listed, id)
	}
	for id := range listed {
		t.Errorf("volume %s is listed but not on disk", id)
	}
	for _, dir := range []string{"tmp", "trash"} {
		if left := names(t, filepath.Join(e.pool.Dir, ".plinth", dir)); len(left) != 0 {
			t.Errorf(".plinth/%s holds %q", dir, left)
		}
	}
	for _, l := range loopsBelow(t, e.pool.Dir) {
		t.Errorf("loop device left: %s", l)
	}
	for _, m := range mountsBelow(t, e.pool.Dir) {
		t.Errorf("mount left: %s", m)
	}
}

// suffixes are what backends put behind an ID.
var suffixes = []string{"", ".img", ".disk"}

// bare is a name in volumes/ without them.
func bare(name string) string {
	for _, suffix := range suffixes {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

// names lists a directory; one that is not there is empty.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
