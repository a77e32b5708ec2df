package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// candidate is a pool that could serve a request.
type candidate struct {
	slot       *slot
	space      volume.Space
	enforced   bool
	configured int // its place in the file
}

// candidates are the pools that could serve a request, the one with most
// space first. Without any, the error is that of the pool that came closest:
// an unknown name before a fault, a fault before a property that no pool has,
// that before a size.
func (m *Manager) candidates(ctx context.Context, req volume.Request) ([]candidate, error) {
	asked := splitNames(req.Pool)
	var out []candidate
	var refusals []error
	for _, name := range asked {
		if m.slot(name) == nil {
			refusals = append(refusals, m.noPool(name))
		}
	}
	for i, s := range m.slots() {
		if len(asked) > 0 && !slices.Contains(asked, s.cfg.Name) {
			continue
		}
		c, err := m.candidate(ctx, s, req, (*pool).glance)
		if err == nil && c.space.Max < req.Size {
			c, err = m.candidate(ctx, s, req, (*pool).survey)
		}
		if err == nil && c.space.Max < req.Size {
			err = tooLarge(s.cfg.Name, c, req)
		}
		if err != nil {
			refusals = append(refusals, err)
			continue
		}
		c.configured = i
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, sum(refusals)
	}
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.space.Available, a.space.Available), cmp.Compare(a.configured, b.configured))
	})
	return out, nil
}

func tooLarge(name string, c candidate, req volume.Request) error {
	return fmt.Errorf("%w: pool %s: %d bytes asked, %d available, the largest volume has %d", volume.ErrNoCapacity, name, req.Size, c.space.Available, c.space.Max)
}

// noPool is the error for a name that no usable pool has.
func (m *Manager) noPool(name string) error {
	for _, r := range m.refused() {
		if r.Name == name {
			return fmt.Errorf("%w: pool %s: %w", volume.ErrPoolUnavailable, name, r)
		}
	}
	return fmt.Errorf("%w: no pool %.63q on node %s; the pools are %s", volume.ErrInvalid, name, m.opts.Node, m.names())
}

// candidate checks one pool against all of a request but the size that is
// free now, which look says.
func (m *Manager) candidate(ctx context.Context, s *slot, req volume.Request, look func(*pool, context.Context) (ground, error)) (candidate, error) {
	p, release, err := s.use()
	if err != nil {
		return candidate{}, err
	}
	defer release()
	if err := p.serves(p.backend.Abilities(), req); err != nil {
		return candidate{}, err
	}
	if p.node != "" && len(req.Nodes) > 0 && !slices.Contains(req.Nodes, p.node) {
		return candidate{}, fmt.Errorf("%w: pool %s is on node %s, asked are %s", volume.ErrNoCapacity, s.cfg.Name, p.node, strings.Join(req.Nodes, ", "))
	}
	g, err := look(p, ctx)
	if err != nil {
		return candidate{}, err
	}
	if c := g.capacity; req.Size > 0 && (c.MaxVolume > 0 && req.Size > c.MaxVolume || req.LimitBytes > 0 && req.LimitBytes < c.MinVolume) {
		return candidate{}, fmt.Errorf("%w: pool %s makes volumes of %d to %d bytes, asked are %d", volume.ErrOutOfRange, s.cfg.Name, c.MinVolume, c.MaxVolume, req.Size)
	}
	promised, _, err := p.promised()
	if err != nil {
		return candidate{}, err
	}
	room := available(s.cfg, g, promised)
	return candidate{slot: s, enforced: g.capacity.Enforced, space: volume.Space{
		Available: room, Max: largest(g, room), Min: g.capacity.MinVolume,
	}}, nil
}

// serves checks mode, filesystem and access modes.
func (p *pool) serves(a backend.Abilities, req volume.Request) error {
	switch {
	case req.Mode != "" && !slices.Contains(a.Modes, req.Mode):
		return fmt.Errorf("%w: pool %s (%s) makes no %s volumes; the modes are %v", volume.ErrUnsupported, p.cfg.Name, p.kind, req.Mode, a.Modes)
	case req.FSType != "" && len(a.FSTypes) == 0:
		return fmt.Errorf("%w: pool %s (%s) gives directories, no filesystem %.20q of their own; leave csi.storage.k8s.io/fstype out or use a pool of images", volume.ErrUnsupported, p.cfg.Name, p.kind, req.FSType)
	case req.FSType != "" && !slices.Contains(a.FSTypes, req.FSType):
		return fmt.Errorf("%w: pool %s (%s) makes no filesystem %.20q; those it makes are %s", volume.ErrUnsupported, p.cfg.Name, p.kind, req.FSType, strings.Join(a.FSTypes, ", "))
	}
	if req.Thick && !a.Thick {
		return fmt.Errorf("%w: pool %s (%s) makes no thick volumes; use a pool of images or devices", volume.ErrUnsupported, p.cfg.Name, p.kind)
	}
	if err := errors.Join(p.scrubs(req.Spec), p.servesSpec(a, req.Spec)); err != nil {
		return err
	}
	if i := slices.IndexFunc(req.AccessModes, multiNode); i >= 0 && !p.cfg.Shared {
		return fmt.Errorf("%w: pool %s is of one node and cannot serve %s; ask for ReadWriteOnce or ReadWriteOncePod, or use a shared pool", volume.ErrUnsupported, p.cfg.Name, req.AccessModes[i])
	}
	return nil
}

func multiNode(m volume.AccessMode) bool {
	return m == volume.ReadWriteMany || m == volume.ReadOnlyMany
}

// splitNames reads a list of names with commas.
func splitNames(list string) []string {
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// sum makes one error of what every pool said. Its kind is the first of this
// order that is among them; the others are text.
func sum(refusals []error) error {
	if len(refusals) == 0 {
		return fmt.Errorf("%w: this node has no pools", volume.ErrNoCapacity)
	}
	for _, kind := range []error{volume.ErrInvalid, volume.ErrNoCapacity, volume.ErrPoolUnavailable, volume.ErrOutOfRange, volume.ErrUnsupported} {
		i := slices.IndexFunc(refusals, func(err error) bool { return errors.Is(err, kind) })
		if i < 0 {
			continue
		}
		var others []string
		for j, err := range refusals {
			if j != i {
				others = append(others, err.Error())
			}
		}
		if len(others) == 0 {
			return refusals[i]
		}
		return fmt.Errorf("%w; %s", refusals[i], strings.Join(others, "; "))
	}
	return errors.Join(refusals...)
}
