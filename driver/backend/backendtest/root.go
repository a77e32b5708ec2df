package backendtest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/volume"
)

// aRoot is a root directory as a spec may ask for it; only root can give it
// to somebody else.
func aRoot() volume.Root {
	if os.Geteuid() != 0 {
		return volume.Root{Mode: 0o2750}
	}
	return volume.Root{Mode: 0o2750, UID: 70123, GID: 70456}
}

// testRootDirectory: it is as asked from the first mount on, and what its
// owner makes of it later stays when the volume is asked for again.
func testRootDirectory(t *testing.T, e *env) {
	s := e.spec("rooted")
	s.Root = aRoot()
	e.ensure(t, s)
	c := e.use(t, s.ID)
	c.requireRoot(t, s.Root)
	c.put(t, "data")
	if err := os.Chmod(c.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	e.done(t, s.ID, c)
	e.reopen(t)
	e.ensure(t, s)
	c = e.use(t, s.ID)
	c.require(t, "data")
	changed := s.Root
	changed.Mode = 0o711
	c.requireRoot(t, changed)
	e.done(t, s.ID, c)
}

func (c *consumer) requireRoot(t *testing.T, want volume.Root) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(c.dir, &st); err != nil {
		t.Fatal(err)
	}
	got := volume.Root{Mode: st.Mode &^ unix.S_IFMT, UID: st.Uid, GID: st.Gid}
	if want.UID == 0 && want.GID == 0 {
		got.UID, got.GID = 0, 0
	}
	if got != want {
		t.Errorf("the root directory is %04o %d:%d, asked was %04o %d:%d", got.Mode, got.UID, got.GID, want.Mode, want.UID, want.GID)
	}
}
