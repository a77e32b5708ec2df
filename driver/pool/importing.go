package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// A directory that others made, anywhere in a pool but in the places that are
// Plinth's, becomes a volume without its bytes being moved, and back: see
// backend.Importer. The record comes first, as always. What a cut leaves of an
// import is undone and what it leaves of a release is finished; neither ever
// ends in a removal.

// outside refuses a path in the places of a pool.
func outside(p volume.Path) error {
	if _, err := volume.ParsePath(string(p)); err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(p), "/")
	if slices.Contains([]string{volumesDir, snapshotsDir, pathsDir}, first) {
		return fmt.Errorf("%w: %s is in a place of Plinth's own", volume.ErrInvalid, p)
	}
	return nil
}

// importable checks what a request to import must be.
func importable(req volume.Request) error {
	switch {
	case req.Mode != volume.Filesystem:
		return fmt.Errorf("%w: volume %s: a directory cannot become a %s volume", volume.ErrInvalid, req.ID, req.Mode)
	case req.From != (volume.Content{}) || req.Ephemeral || req.Path != "":
		return fmt.Errorf("%w: volume %s: what is imported has its content, and a path where it was", volume.ErrInvalid, req.ID)
	case len(splitNames(req.Pool)) != 1:
		return fmt.Errorf("%w: volume %s: name the one pool that the directory is in", volume.ErrInvalid, req.ID)
	}
	return outside(req.Import)
}

// importer is the pool's backend as one that imports.
func (p *pool) importer() (backend.Importer, error) {
	i, ok := p.backend.(backend.Importer)
	if !ok {
		return nil, fmt.Errorf("%w: pool %s (%s) has no directories as volumes; use a pool with backend directory", volume.ErrUnsupported, p.cfg.Name, p.kind)
	}
	return i, i.Imports()
}

// importNew imports a directory for a record that is not written yet.
func (p *pool) importNew(ctx context.Context, r record) (record, error) {
	if _, err := p.importer(); err != nil {
		return record{}, err
	}
	if err := p.vacant(ctx, r.Spec.ID); err != nil {
		return record{}, err
	}
	held, _, err := p.dir.Count(ctx, string(r.Imported))
	if err != nil {
		return record{}, fmt.Errorf("import %s: %w: %w", filepath.Join(p.cfg.Path, string(r.Imported)), volume.ErrInvalid, err)
	}
	if held > r.Spec.Size {
		return record{}, fmt.Errorf("import %s: %w: it holds %d bytes, and a volume of %d is asked for",
			filepath.Join(p.cfg.Path, string(r.Imported)), volume.ErrOutOfRange, held, r.Spec.Size)
	}
	r.State = importing
	// What it holds is taken already: it was a stranger's.
	if err := p.promise(ctx, r, r.Spec.Size-held); err != nil {
		return record{}, err
	}
	return p.importDir(ctx, r)
}

// importDir does what the record says is under way.
func (p *pool) importDir(ctx context.Context, r record) (record, error) {
	i, err := p.importer()
	if err != nil {
		return record{}, err
	}
	var info volume.Info
	err = p.making(func() error {
		info, err = i.Import(ctx, string(r.Imported), r.Spec)
		return err
	})
	if err != nil {
		return record{}, p.giveUp(ctx, r, err)
	}
	p.seen.made(volumeKey(r.Spec.ID), info.Allocated)
	return p.made(ctx, r, info, 0)
}

// Release makes a volume of a pool the directory to, below the pool and
// outside its own places, as it is: the volume is no more, its data stays. It
// returns the absolute path. ErrInUse while it is mounted, ErrExists if
// something is there, ErrInvalid where it cannot be. One that is not there was released before.
func (m *Manager) Release(ctx context.Context, name string, id volume.ID, to volume.Path) (string, error) {
	at, err := m.release(ctx, name, id, to)
	if err != nil {
		return "", fmt.Errorf("release volume %s: %w", id, err)
	}
	return at, nil
}

func (m *Manager) release(ctx context.Context, name string, id volume.ID, to volume.Path) (string, error) {
	if err := outside(to); err != nil {
		return "", err
	}
	hold, err := m.Hold(id)
	if err != nil {
		return "", err
	}
	defer hold()
	s := m.slot(name)
	if s == nil {
		return "", m.noPool(name)
	}
	p, done, err := s.use()
	if err != nil {
		return "", err
	}
	defer done()
	unlock, err := p.lockVolume(id)
	if err != nil {
		return "", err
	}
	defer unlock()
	at := filepath.Join(p.cfg.Path, string(to))
	e, err := p.records.get(id)
	if errors.Is(err, volume.ErrNotFound) {
		return at, nil
	}
	if err != nil {
		return "", err
	}
	return at, p.releaseTo(ctx, e, to)
}

func (p *pool) releaseTo(ctx context.Context, e entry, to volume.Path) error {
	if _, err := p.importer(); err != nil {
		return err
	}
	r := e.record
	switch {
	case e.broken != "":
		return fmt.Errorf("%w (%s)", errIncomplete, e.broken)
	case r.State == releasing && r.ReleaseTo == to:
	case r.State != ready:
		return fmt.Errorf("it is %s: %w", r.State, volume.ErrBusy)
	case p.ours(r.Cluster) != nil:
		return p.ours(r.Cluster)
	default:
		r.State, r.ReleaseTo = releasing, to
		if err := p.records.put(r); err != nil {
			return err
		}
	}
	err := p.giveBack(ctx, r)
	if errors.Is(err, volume.ErrInUse) || errors.Is(err, volume.ErrExists) || errors.Is(err, volume.ErrInvalid) { // nothing has changed
		r.State, r.ReleaseTo = ready, ""
		err = errors.Join(err, p.records.put(r))
	}
	return err
}

// giveBack makes a volume that is being imported or released a directory
// again; its record goes last.
func (p *pool) giveBack(ctx context.Context, r record) error {
	i, err := p.importer()
	if err != nil {
		return err
	}
	id := r.Spec.ID
	to := cmp.Or(r.ReleaseTo, r.Imported)
	if err := i.Release(ctx, id, string(to)); err != nil {
		return err
	}
	p.seen.removed(volumeKey(id))
	if to != r.Imported {
		if err := p.unlinkOrigin(r); err != nil {
			return err
		}
	}
	if err := p.unlink(r); err != nil {
		return err
	}
	if err := p.records.remove(id); err != nil {
		return err
	}
	p.problems.clear(string(id))
	return nil
}

// unlinkOrigin removes the link that an import left where the directory was.
func (p *pool) unlinkOrigin(r record) error {
	if r.Imported == "" {
		return nil
	}
	text, err := p.dir.Readlink(string(r.Imported))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	if err != nil || !leadsTo(text, r.Spec.ID) {
		return nil // somebody else's, who keeps it
	}
	return p.dir.Remove(string(r.Imported))
}
