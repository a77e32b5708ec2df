package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/filelock"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// OpenBackend opens a backend over a pool's path, as the pool's configuration
// says. An error that wraps volume.ErrUnsupported means that the filesystem
// there cannot carry it; nothing was written then.
type OpenBackend func(ctx context.Context, cfg PoolConfig) (backend.Opened, error)

// pool is an open pool. Its name, path, marker and backend do not change.
type pool struct {
	cfg     PoolConfig                 // as it was opened; of terms see there
	terms   atomic.Pointer[PoolConfig] // as the file is now: what may change while the pool serves
	node    string                     // where its volumes live; "" for a shared pool
	cluster string
	hold    func(volume.ID) (release func(), err error) // Manager.Hold
	log     *slog.Logger
	root    *os.Root
	dir     *beneath.Dir // the same directory
	guard   guard
	kind    string // the backend's name
	backend backend.Opened
	records volumeRecords
	snaps   snapshotRecords
	groups  groupRecords
	held    locks    // of a pool with one owner: see lockKey
	lock    *os.File // open for as long as the pool is; locked if it has one owner

	reserving sync.Mutex // held while bytes are promised, never during slow work
	pending   pending

	seen     seen
	disks    atomic.Pointer[volume.Capacity] // of a pool of whole disks, as last seen
	jobs     *jobs
	uses     sync.WaitGroup
	problems problems
}

// open opens a pool, sets it up if it is new, and finishes or undoes what a
// cut left. known is the UUID that was served at that path before, or "".
func (m *Manager) open(ctx context.Context, cfg PoolConfig, known string) (*pool, *Fault) {
	if fault := checkPath(cfg); fault != nil {
		return nil, fault
	}
	root, err := os.OpenRoot(cfg.Path)
	if err != nil {
		return nil, cfg.fault(ReasonIO, "%v", err)
	}
	p := &pool{
		cfg: cfg, cluster: m.opts.ClusterID, hold: m.Hold, root: root, pending: pending{map[volume.ID]int64{}, map[volume.ID]int64{}, map[volume.ID]volume.Path{}},
		log: m.opts.Log.With(logPool, cfg.Name),
	}
	p.jobs = newJobs(p.log)
	p.terms.Store(&cfg)
	if !cfg.Shared {
		p.node = m.opts.Node
	}
	fault := p.start(ctx, m.opts, known)
	if fault != nil {
		p.close()
		return nil, fault
	}
	return p, nil
}

// start does the part of opening that may leave something to close.
func (p *pool) start(ctx context.Context, opts Options, known string) *Fault {
	dir, err := beneath.Open(p.cfg.Path)
	if err != nil {
		return p.cfg.fault(ReasonIO, "%v", err)
	}
	p.dir = dir
	m, err := readMarker(dir)
	found := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p.cfg.fault(ReasonForeign, "%v; nothing was touched", err)
	}
	fresh, fault := decide(p.cfg, m, found, known)
	if fault != nil {
		return fault
	}
	if fresh && hasRecords(p.root) {
		return p.cfg.fault(ReasonNoMarker, "%s has records of volumes and no marker; put %s back from a backup", p.cfg.Path, markerFile)
	}
	if fault := p.takeLock(); fault != nil {
		return fault
	}
	if fault := p.openBackend(ctx, opts.Backends, m.Backend); fault != nil {
		return fault
	}
	if fresh {
		if m, fault = p.setUp(dir, known); fault != nil {
			return fault
		}
	}
	id, err := p.private(dir)
	if err != nil {
		return p.cfg.fault(ReasonIO, "%v", err)
	}
	p.guard = guard{path: p.cfg.Path, id: id, uuid: m.UUID}
	step := opts.step
	if step == nil {
		step = func(string) error { return nil }
	}
	p.records = newVolumeRecords(p.root, p.cfg.Shared, step)
	p.snaps = newSnapshotRecords(p.root, p.cfg.Shared, step)
	p.groups = newGroupRecords(p.root, p.cfg.Shared, step)
	if err := errors.Join(p.records.open(), p.snaps.open(), p.groups.open()); err != nil {
		return p.cfg.fault(ReasonIO, "%v", err)
	}
	p.recover(ctx)
	p.recoverSnapshots(ctx)
	p.checkGroups()
	return nil
}

// private keeps everybody but root out of the pool's places, and checks that
// dir, whose marker was read, is the directory that is written to.
func (p *pool) private(dir *beneath.Dir) (identity, error) {
	for _, place := range []string{privateDir, recordsDir, snapshotRecordsDir, groupRecordsDir, volumesDir, snapshotsDir, pathsDir} {
		if err := p.root.Chmod(place, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return identity{}, err
		}
	}
	id, err := identify(dir)
	if err != nil {
		return identity{}, err
	}
	fi, err := p.root.Stat(".")
	if err != nil {
		return identity{}, err
	}
	if here, err := identityOf(fi); err != nil || here != id {
		return identity{}, errors.Join(errors.New("the path was mounted anew while it was opened"), err)
	}
	return id, nil
}

// checkPath looks at the path before anything there is opened.
func checkPath(cfg PoolConfig) *Fault {
	fi, err := os.Lstat(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg.fault(ReasonMissing, "path %s does not exist; mount the disk there, or make the directory", cfg.Path)
	}
	if err != nil {
		return cfg.fault(ReasonIO, "%v", err)
	}
	resolved, err := filepath.EvalSymlinks(cfg.Path)
	if err != nil {
		return cfg.fault(ReasonIO, "%v", err)
	}
	if resolved != cfg.Path {
		return cfg.fault(ReasonSymlink, "path %s goes through a symlink; write %s", cfg.Path, resolved)
	}
	if !fi.IsDir() {
		return cfg.fault(ReasonNotDir, "path %s is not a directory", cfg.Path)
	}
	if !cfg.RequireMount {
		return nil
	}
	m, err := mount.PoolMount(cfg.Path)
	if err != nil {
		return cfg.fault(ReasonIO, "%v", err)
	}
	if !ownMount(m, fi) {
		return cfg.fault(ReasonNotMounted, "nothing is mounted at %s; mount the disk there, or set requireMount: false to keep the pool on the filesystem of %s", cfg.Path, m.Point)
	}
	return nil
}

// ownMount reports whether a filesystem is mounted at the path on the host.
// In a container every hostPath is a mount point: a bind of a plain directory
// of the host shows, as the root of the mount, that directory's path within
// its filesystem, which ends the host's path of it. The path of a btrfs
// subvolume looks alike; its inode number tells it from a directory.
func ownMount(m mount.Pool, fi fs.FileInfo) bool {
	if !m.IsMountPoint {
		return false
	}
	if m.Root == "/" || !strings.HasSuffix(m.Point, m.Root) {
		return true
	}
	id, err := identityOf(fi)
	return err == nil && m.FSType == "btrfs" && id.ino == btrfsSubvolumeInode
}

// btrfsSubvolumeInode is the inode of the top of every subvolume
// (linux/btrfs_tree.h, BTRFS_FIRST_FREE_OBJECTID).
const btrfsSubvolumeInode = 256

// takeLock opens the lock file. A pool with one owner is locked for as long as
// its process lives; in a shared one every operation locks what it needs.
func (p *pool) takeLock() *Fault {
	err := errors.Join(p.root.MkdirAll(recordsDir, 0o700), p.root.MkdirAll(snapshotRecordsDir, 0o700), p.root.MkdirAll(groupRecordsDir, 0o700))
	if err == nil {
		p.lock, err = p.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err == nil && !p.cfg.Shared {
		err = filelock.Try(p.lock, filelock.Whole)
	}
	if errors.Is(err, filelock.ErrHeld) {
		return p.cfg.fault(ReasonLocked, "another plinth serves the pool now; this one takes over when that one ends")
	}
	if err != nil {
		return p.cfg.fault(ReasonIO, "%v", err)
	}
	return nil
}

// openBackend opens the backend that the marker names, or the configured one,
// or the first that enforces capacity there.
func (p *pool) openBackend(ctx context.Context, known map[string]OpenBackend, marked string) *Fault {
	candidates := []string{marked}
	switch {
	case marked != "":
	case p.cfg.Backend != BackendAuto:
		candidates = []string{p.cfg.Backend}
	case p.cfg.Shared:
		candidates = []string{BackendDirectory}
	default:
		candidates = []string{BackendBtrfs, BackendDirectory, BackendImage}
	}
	var refusals []string
	for _, kind := range candidates {
		open, ok := known[kind]
		if !ok {
			return p.cfg.fault(ReasonConfig, "this plinth has no backend %s", kind)
		}
		b, err := p.openAlone(ctx, open)
		if err == nil {
			p.backend, p.kind = b, kind
			return nil
		}
		refusals = append(refusals, fmt.Sprintf("%s: %v", kind, err))
		if !errors.Is(err, volume.ErrUnsupported) {
			break
		}
	}
	out := strings.Join(refusals, "; ")
	if p.cfg.Backend == BackendAuto && p.cfg.Shared {
		out += "; a shared pool without project quotas needs backend: directory and quota: none, which limits no volume"
	}
	return p.cfg.fault(ReasonBackend, "no backend can serve %s: %s", p.cfg.Path, out)
}

// openAlone opens a backend, which then clears away what it finds unfinished.
// In a shared pool no node makes a volume meanwhile: see making.
func (p *pool) openAlone(ctx context.Context, open OpenBackend) (backend.Opened, error) {
	if !p.cfg.Shared {
		return open(ctx, p.cfg)
	}
	if err := filelock.Wait(p.lock, filelock.Opening); err != nil {
		return nil, err
	}
	b, err := open(ctx, p.cfg)
	if unlockErr := filelock.Unlock(p.lock, filelock.Opening); unlockErr != nil {
		p.log.Warn("unlock pool", logError, unlockErr)
	}
	return b, err
}

// hasRecords reports whether there is any file among the records.
func hasRecords(root *os.Root) bool {
	for _, dir := range []string{recordsDir, snapshotRecordsDir, groupRecordsDir} {
		if entries, err := fs.ReadDir(root.FS(), dir); err == nil && len(entries) > 0 {
			return true
		}
	}
	return false
}

// close ends what goes on in the background, waits for operations under way
// and lets go of everything. Volumes stay mounted and attached.
func (p *pool) close() {
	p.jobs.close()
	p.uses.Wait()
	var errs []error
	if p.backend != nil {
		errs = append(errs, p.backend.Close())
	}
	if p.lock != nil {
		errs = append(errs, filelock.Close(p.lock))
	}
	if p.dir != nil {
		errs = append(errs, p.dir.Close())
	}
	errs = append(errs, p.root.Close())
	if err := errors.Join(errs...); err != nil {
		p.log.Warn("close pool", logError, err)
	}
}
