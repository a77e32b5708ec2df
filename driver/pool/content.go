package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// content is what a new volume starts with, as the record of it tells.
type content struct {
	what   string // its key
	size   int64  // bytes; the least for a volume made of it
	mode   volume.Mode
	fsType string
	held   int64 // bytes that it holds at most
	family volume.ID
}

// content reads the record of a source; ErrBusy for a snapshot that is still
// being copied.
func (p *pool) content(c volume.Content) (content, error) {
	if c.Snapshot != "" {
		e, err := p.snaps.get(c.Snapshot)
		switch {
		case err != nil:
		case e.broken != "":
			err = fmt.Errorf("%w (%s)", errIncomplete, e.broken)
		case e.State == creating:
			err = fmt.Errorf("%w: it is not ready yet", volume.ErrBusy)
		case e.State != ready:
			err = volume.ErrNotFound
		}
		if err != nil {
			return content{}, fmt.Errorf("%s: %w", snapshotKey(c.Snapshot), err)
		}
		return content{snapshotKey(e.ID), e.Size, e.Mode, e.FSType, e.Held, e.Family}, nil
	}
	e, err := p.records.get(c.Volume)
	switch {
	case err != nil:
	case e.broken != "":
		err = fmt.Errorf("%w (%s)", errIncomplete, e.broken)
	case e.State != ready:
		err = volume.ErrNotFound
	}
	if err != nil {
		return content{}, fmt.Errorf("%s: %w", volumeKey(c.Volume), err)
	}
	return content{volumeKey(c.Volume), max(e.Spec.Size, e.GrowTo), e.Spec.Mode, e.Spec.FSType, e.reserved(), e.family()}, nil
}

// besideSource steers a request to the pool of its source and fills in what it
// leaves to the source: size and filesystem.
func (m *Manager) besideSource(req volume.Request) (volume.Request, error) {
	what := volumeKey(req.From.Volume)
	if req.From.Snapshot != "" {
		what = snapshotKey(req.From.Snapshot)
	}
	f, err := seek(m, what, func(p *pool) (struct{}, error) {
		var err error
		if req.From.Snapshot != "" {
			_, err = p.snaps.get(req.From.Snapshot)
		} else {
			_, err = p.records.get(req.From.Volume)
		}
		return struct{}{}, err
	})
	if err != nil {
		return req, err
	}
	defer f.release()
	p := f.pool
	src, err := p.content(req.From)
	if err != nil {
		return req, err
	}
	if asked := splitNames(req.Pool); len(asked) > 0 && !slices.Contains(asked, p.cfg.Name) {
		return req, fmt.Errorf("%w: %s is in pool %s and asked is pool %s; data is not moved between pools", volume.ErrInvalid, what, p.cfg.Name, req.Pool)
	}
	if p.node != "" && len(req.Nodes) > 0 && !slices.Contains(req.Nodes, p.node) {
		// Of the kind that has whoever chose the node choose another.
		return req, fmt.Errorf("%w: %s is on node %s and asked are %s", volume.ErrNoCapacity, what, p.node, strings.Join(req.Nodes, ", "))
	}
	if req.FSType == "" {
		req.FSType = src.fsType
	}
	if req.Size == 0 {
		req.Size = src.size
	}
	req.Pool = p.cfg.Name
	return req, src.allows(req)
}

// allows says why a volume as requested cannot be made of the content.
func (c content) allows(req volume.Request) error {
	switch {
	case req.Mode != c.mode:
		return fmt.Errorf("%w: %s is a %s volume and asked is %s", volume.ErrUnsupported, c.what, c.mode, req.Mode)
	case req.FSType != c.fsType:
		return fmt.Errorf("%w: %s has the filesystem %q and asked is %.20q", volume.ErrUnsupported, c.what, c.fsType, req.FSType)
	case req.Size < c.size:
		return fmt.Errorf("%w: %s has %d bytes and asked are %d", volume.ErrOutOfRange, c.what, c.size, req.Size)
	case req.LimitBytes > 0 && req.LimitBytes < c.size:
		return fmt.Errorf("%w: %s has %d bytes and allowed are %d", volume.ErrOutOfRange, c.what, c.size, req.LimitBytes)
	}
	return nil
}

// createFrom makes a volume with the content of another or of a snapshot. It
// waits for as long as the context lives and goes on afterwards: ErrBusy then.
// unlock lets go of the new volume's lock, which it takes over.
func (p *pool) createFrom(ctx context.Context, r record, limit int64, unlock func()) (record, error) {
	src, err := p.beginFrom(ctx, &r)
	if err != nil {
		unlock()
		return record{}, err
	}
	w, err := p.jobs.start(volumeKey(r.Spec.ID), func(ctx context.Context, w *job) error {
		defer unlock()
		defer src.release()
		return p.fill(ctx, r, limit, src.watch(w))
	})
	if err != nil {
		src.release()
		unlock()
		return record{}, err
	}
	return p.filled(ctx, w, r)
}

// filled waits for the copy that fills a volume.
func (p *pool) filled(ctx context.Context, w *job, r record) (record, error) {
	if err := w.wait(ctx, r.Spec.Size); err != nil {
		if w.ended() {
			p.jobs.find(volumeKey(r.Spec.ID)) // its error is told now
		}
		return record{}, err
	}
	e, err := p.records.get(r.Spec.ID)
	if err == nil && e.State != ready {
		err = fmt.Errorf("volume %s is %s: %w", r.Spec.ID, e.State, volume.ErrBusy)
	}
	return e.record, err
}

// beginFrom keeps the source as it is, promises the bytes of the copy and
// writes its record.
func (p *pool) beginFrom(ctx context.Context, r *record) (src kept, err error) {
	if _, err := p.snapshotter(); err != nil {
		return kept{}, err
	}
	if src, err = p.keepSource(r.From); err != nil {
		return kept{}, err
	}
	defer func() {
		if err != nil {
			src.release()
		}
	}()
	c, err := p.content(r.From) // as it is now that nobody changes it
	if err != nil {
		return src, err
	}
	if r.Spec.Size < c.size {
		return src, fmt.Errorf("%w: %s has %d bytes by now and asked are %d", volume.ErrOutOfRange, c.what, c.size, r.Spec.Size)
	}
	switch how := p.backend.Abilities().Sharing; {
	case how == backend.SharesFree:
		r.Beside = c.held
		r.Family = c.family
	case how != backend.SharesNothing && !r.Spec.Thick: // a thick one has bytes of its own
		r.Family = c.family
	}
	_, err = p.records.get(r.Spec.ID)
	if err == nil {
		err = volume.ErrBusy
	}
	if !errors.Is(err, volume.ErrNotFound) {
		return src, err
	}
	if err := p.vacant(ctx, r.Spec.ID); err != nil {
		return src, err
	}
	return src, p.promise(ctx, *r, r.reserved())
}

// fill copies the content into a new volume. It is undone if that fails,
// unless the process is about to end or somebody gave it up.
func (p *pool) fill(ctx context.Context, r record, limit int64, progress backend.Progress) error {
	s, err := p.snapshotter()
	if err != nil {
		return err
	}
	var info volume.Info
	err = p.making(func() (err error) {
		if r.From.Snapshot != "" {
			info, err = s.Restore(ctx, r.From.Snapshot, r.Spec, progress)
		} else {
			info, err = s.Clone(ctx, r.From.Volume, r.Spec, progress)
		}
		return err
	})
	if err != nil {
		return p.giveUp(ctx, r, err)
	}
	if p.backend.Abilities().Sharing == backend.SharesNothing {
		p.seen.made(volumeKey(r.Spec.ID), info.Allocated)
	}
	if r.Beside, err = p.shares(ctx, r); err != nil {
		return p.giveUp(ctx, r, err)
	}
	_, err = p.made(ctx, r, info, limit)
	return err
}

// shares is what a copy that is there may hold beside its size. It was promised
// all that its source could come to hold, and shares what that held at the cut:
// not more than its source holds now, for bytes that it shares stay its
// source's when that no longer needs them.
func (p *pool) shares(ctx context.Context, r record) (int64, error) {
	if r.Beside == 0 || r.From.Volume == "" { // of a snapshot it is known
		return r.Beside, nil
	}
	src, err := p.records.get(r.From.Volume)
	if err != nil {
		return 0, err
	}
	held, err := p.mayHold(ctx, src.record)
	return min(r.Beside, held), err
}

// awaitCopy waits for the copy that fills the volume of a request.
func (m *Manager) awaitCopy(ctx context.Context, p *pool, w *job, req volume.Request) (volume.Volume, error) {
	e, err := p.records.get(req.ID)
	if errors.Is(err, volume.ErrNotFound) && w.ended() {
		return volume.Volume{}, w.err
	}
	if err == nil {
		err = m.differs(p, e.record, req)
	}
	if err != nil {
		return volume.Volume{}, err
	}
	r, err := p.filled(ctx, w, e.record)
	return r.volume(p.node), err
}
