package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
)

// A volume with a path is named by a symlink below pathsDir, beside its data,
// which stays where it is. The link is there from when the volume is first
// exposed until its data is gone, whatever is mounted. So a path that cannot
// be used now is a dangling link or is not there at all, and nobody mistakes
// it for an empty directory or makes one in its place.

// pathFree refuses a path that another volume has. The caller is promising
// it: see reserve.
func (p *pool) pathFree(r reservation) error {
	if r.path == "" {
		return nil
	}
	for id, pending := range p.pending.paths {
		if id != r.id && pending.Clashes(r.path) {
			return p.taken(r.path, record{Spec: volume.Spec{ID: id}, Path: pending})
		}
	}
	entries, err := p.records.all()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Spec.ID != r.id && e.Path != "" && e.Path.Clashes(r.path) {
			return p.taken(r.path, e.record)
		}
	}
	return nil
}

// taken says who has a path, or one that is in its way.
func (p *pool) taken(asked volume.Path, by record) error {
	claim := ""
	if name := by.Labels["claim"]; name != "" {
		claim = fmt.Sprintf(" (claim %s/%s)", by.Labels["namespace"], name)
	}
	return fmt.Errorf("%w: %s in pool %s: volume %s%s has %s; delete or adopt that one, or use another pathPattern",
		volume.ErrPathTaken, asked, p.cfg.Name, by.Spec.ID, claim, by.Path)
}

// Name gives a volume that is exposed at target its own path, if it was made
// with one, and returns where it is to be found. The caller holds the volume.
func (m *Manager) Name(_ context.Context, id volume.ID, target string) (string, error) {
	f, err := m.findReady(id)
	if err != nil {
		return "", err
	}
	defer f.release()
	if f.entry.Path == "" {
		return target, nil
	}
	return f.pool.link(f.entry.record, target)
}

// linkAttempts bounds the races with those who remove empty directories.
const linkAttempts = 100

// link makes the symlink of a volume, or finds it made. One that leads
// elsewhere is put right if it is this volume's; anything else stays.
func (p *pool) link(r record, target string) (string, error) {
	name := path.Join(pathsDir, string(r.Path))
	at := filepath.Join(p.cfg.Path, name)
	for range linkAttempts {
		err := p.records.step("name volume")
		if err == nil {
			err = p.makeParents(path.Dir(name))
		}
		if err == nil {
			err = p.dir.Symlink(target, name)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a parent was empty, and somebody has just removed it
		case errors.Is(err, fs.ErrExist):
			now, err := p.dir.Readlink(name)
			if err == nil && now == target {
				return at, nil
			}
			if leadsTo(now, r.Spec.ID) { // Plinth mounts it elsewhere now
				if err := p.dir.Remove(name); err != nil {
					return "", err
				}
				continue
			}
			return "", fmt.Errorf("%w: %s is there and is not Plinth's link to volume %s; move it away", volume.ErrPathTaken, at, r.Spec.ID)
		case err != nil:
			return "", fmt.Errorf("name volume %s: %w", r.Spec.ID, err)
		}
		return at, nil
	}
	return "", fmt.Errorf("name volume %s: %w: the directories above %s are removed again and again", r.Spec.ID, volume.ErrBusy, at)
}

// makeParents makes pathsDir and what is below it, for root only.
func (p *pool) makeParents(dir string) error {
	if dir != pathsDir {
		if err := p.makeParents(path.Dir(dir)); err != nil {
			return err
		}
	}
	return p.dir.Mkdir(dir, 0o700)
}

// unlink removes the link of a volume that is gone, and the directories above
// it that this leaves empty.
func (p *pool) unlink(r record) error {
	if r.Path == "" {
		return nil
	}
	if err := p.records.step("remove name of volume"); err != nil {
		return err
	}
	name := path.Join(pathsDir, string(r.Path))
	text, err := p.dir.Readlink(name)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a cut came between it and the directories
	case errors.Is(err, fs.ErrInvalid) || err == nil && !leadsTo(text, r.Spec.ID):
		return nil // somebody else's, who keeps it
	case err != nil:
		return err
	default:
		if err := p.dir.Remove(name); err != nil {
			return err
		}
	}
	for dir := path.Dir(name); dir != pathsDir; dir = path.Dir(dir) {
		if err := p.dir.Rmdir(dir); err != nil {
			return nil // it is others', too
		}
	}
	return nil
}

// leadsTo reports whether the text of a link has a volume's ID as an element.
func leadsTo(text string, id volume.ID) bool {
	return slices.Contains(strings.Split(text, "/"), string(id))
}
