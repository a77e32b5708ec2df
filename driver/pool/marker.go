package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/filelock"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Where things are below a pool's path. The backends have places of their own
// beside these (docs/design.md, "What a pool looks like on disk").
const (
	privateDir = ".plinth"
	markerFile = privateDir + "/pool.json"
	lockFile   = privateDir + "/lock"
	recordsDir = privateDir + "/volumes"
	volumesDir = "volumes"
	pathsDir   = "paths" // made with the first volume that has a path

	snapshotRecordsDir = privateDir + "/snapshots"
	snapshotsDir       = "snapshots"
	groupRecordsDir    = privateDir + "/groups"
)

// markerVersion is the version of the marker that this code writes and reads.
const markerVersion = 1

// maxMarker bounds what is read of a marker, in bytes.
const maxMarker = 64 << 10

// marker says which pool a disk is. It is written once.
type marker struct {
	Version   int       `json:"version"`
	UUID      string    `json:"uuid"`
	Name      string    `json:"name"`
	Backend   string    `json:"backend"`
	CreatedAt time.Time `json:"createdAt"`
}

// newMarker writes the marker of a pool that is set up for the first time.
func newMarker(root *os.Root, name, backend string) (marker, error) {
	m := marker{Version: markerVersion, UUID: uuid.NewString(), Name: name, Backend: backend, CreatedAt: time.Now().UTC().Truncate(time.Second)}
	data, err := json.Marshal(m)
	if err != nil {
		return marker{}, err
	}
	return m, atomicfile.Write(root, "", markerFile, append(data, '\n'), 0o600)
}

// setUp writes the marker of a fresh pool, unless another node or process has
// done so since it was looked for; the pool is then what that one made it.
func (p *pool) setUp(dir *beneath.Dir, known string) (m marker, fault *Fault) {
	failed := func(err error) *Fault { return p.cfg.fault(ReasonIO, "the marker cannot be written: %v", err) }
	if err := filelock.Wait(p.lock, filelock.Opening); err != nil {
		return marker{}, failed(err)
	}
	defer func() {
		if err := filelock.Unlock(p.lock, filelock.Opening); err != nil {
			p.log.Warn("unlock pool", logError, err)
		}
	}()
	m, err := readMarker(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if m, err = newMarker(p.root, p.cfg.Name, p.kind); err != nil {
			return marker{}, failed(err)
		}
		p.log.Info("pool set up", logUUID, m.UUID, logBackend, p.kind)
		return m, nil
	case err != nil:
		return marker{}, p.cfg.fault(ReasonForeign, "%v; nothing was touched", err)
	case m.Backend != p.kind:
		return marker{}, p.cfg.fault(ReasonBackend, "%s has just been set up with backend %s; it is opened again", p.cfg.Path, m.Backend)
	}
	_, fault = decide(p.cfg, m, true, known)
	return m, fault
}

// readMarker reads the marker below dir, on the very filesystem that dir is
// on; fs.ErrNotExist if there is none.
func readMarker(dir *beneath.Dir) (marker, error) {
	f, err := dir.OpenFile(markerFile, os.O_RDONLY, 0)
	if err != nil {
		return marker{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMarker))
	if err := errors.Join(err, f.Close()); err != nil {
		return marker{}, err
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return marker{}, fmt.Errorf("%s: %w", markerFile, err)
	}
	if m.Version != markerVersion {
		return marker{}, fmt.Errorf("%s: version %d, and this plinth knows version %d", markerFile, m.Version, markerVersion)
	}
	if _, err := uuid.Parse(m.UUID); err != nil || m.Name == "" || m.Backend == "" {
		return marker{}, fmt.Errorf("%s: incomplete", markerFile)
	}
	return m, nil
}

// identity is a directory as the kernel knows it. The device number changes
// when a disk is mounted over the path or taken away from it.
type identity struct{ dev, ino uint64 }

func identify(dir *beneath.Dir) (identity, error) {
	fi, err := dir.File().Stat()
	if err != nil {
		return identity{}, err
	}
	return identityOf(fi)
}

func identityOf(fi fs.FileInfo) (identity, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, errors.New("no device number")
	}
	return identity{dev: uint64(st.Dev), ino: st.Ino}, nil //nolint:unconvert // Dev is not 64 bits wide everywhere
}

// guard checks that what is at a path now is still the pool that was opened.
type guard struct {
	path string
	id   identity
	uuid string
}

// check opens the path anew and compares device and marker. It writes nothing.
func (g guard) check() (reason, message string) {
	dir, err := beneath.Open(g.path)
	if err != nil {
		return ReasonMissing, fmt.Sprintf("%s cannot be opened any more (%v); mount its disk again", g.path, err)
	}
	defer dir.Close()
	id, err := identify(dir)
	if err != nil {
		return ReasonIO, fmt.Sprintf("%s cannot be read (%v)", g.path, err)
	}
	m, err := readMarker(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ReasonNoMarker, fmt.Sprintf("%s has lost the marker of pool UUID %s: its disk is not mounted, or another is; mount it again", g.path, g.uuid)
	case err != nil:
		return ReasonIO, err.Error()
	case m.UUID != g.uuid:
		return ReasonForeign, fmt.Sprintf("%s has pool UUID %s, and this node served %s there; mount the right disk", g.path, m.UUID, g.uuid)
	case id != g.id:
		return ReasonNotMounted, fmt.Sprintf("%s was mounted anew; the pool is opened again", g.path)
	}
	return "", ""
}

// decide says what to do with a directory that has the marker m (found) or
// none, as the configuration and the UUID last reported (known, or "") allow.
// fresh is true if the pool may be set up there.
func decide(cfg PoolConfig, m marker, found bool, known string) (fresh bool, fault *Fault) {
	switch {
	case !found && known != "":
		return false, cfg.fault(ReasonNoMarker, "%s has no marker, and this node served pool UUID %s there: its disk is not mounted, or another is; mount it. To begin anew with an empty disk, remove the pool from the file first and add it under another name", cfg.Path, known)
	case !found:
		return true, nil
	case known != "" && m.UUID != known:
		return false, cfg.fault(ReasonForeign, "%s has pool UUID %s, and this node served %s there; mount the right disk", cfg.Path, m.UUID, known)
	case m.Name != cfg.Name:
		return false, cfg.fault(ReasonForeign, "%s was set up as pool %s (UUID %s); mount the right disk, or call the pool %s", cfg.Path, m.Name, m.UUID, m.Name)
	case cfg.Backend != BackendAuto && cfg.Backend != m.Backend:
		return false, cfg.fault(ReasonConfig, "%s was set up with backend %s and the file says %s; a pool never changes its backend, so write %s or auto", cfg.Path, m.Backend, cfg.Backend, m.Backend)
	}
	return false, nil
}

// errIncomplete wraps a record that cannot be served.
var errIncomplete = fmt.Errorf("%w: its record cannot be read", volume.ErrPoolUnavailable)
