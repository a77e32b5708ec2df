package pool

import (
	"context"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// family is those that may share bytes: a volume, its snapshots, and what was
// made of them. most is who of them certainly holds most of what is shared.
type family struct {
	most   string // its key
	shared int64  // bytes
}

// holdings is how many bytes the pool's volumes and snapshots certainly hold,
// by key. Of what a family shares it counts what one of them holds, and of what
// has no record nothing: it never says more than there is, which would be
// promised a second time.
func (p *pool) holdings(ctx context.Context) (map[string]int64, error) {
	volumes, err := p.backend.List(ctx)
	if err != nil {
		return nil, err
	}
	var snapshots []backend.Snapshot
	if s, ok := p.backend.(backend.Snapshotter); ok {
		if snapshots, err = s.ListSnapshots(ctx); err != nil {
			return nil, err
		}
	}
	names, err := p.families()
	if err != nil {
		return nil, err
	}
	held, families := map[string]int64{}, map[volume.ID]family{}
	how := p.backend.Abilities().Sharing
	count := func(key string, alone, shared int64) {
		name, ours := names[key]
		if !ours {
			return
		}
		held[key] = max(0, alone)
		if shared > families[name].shared {
			families[name] = family{key, shared}
		}
	}
	for _, v := range volumes {
		if how == backend.SharesCounted {
			count(volumeKey(v.ID), 0, v.Allocated)
		} else {
			count(volumeKey(v.ID), v.Allocated, 0)
		}
	}
	for _, s := range snapshots {
		switch how {
		case backend.SharesNothing:
			count(snapshotKey(s.ID), s.Held, 0)
		case backend.SharesCounted:
			count(snapshotKey(s.ID), 0, s.Held)
		case backend.SharesApart:
			count(snapshotKey(s.ID), s.Allocated, s.Held-s.Allocated)
		case backend.SharesFree:
			count(snapshotKey(s.ID), s.Allocated, 0)
		}
	}
	for _, f := range families {
		held[f.most] += f.shared
	}
	return held, nil
}

// families names, by key, the family of each volume and snapshot that has a
// record.
func (p *pool) families() (map[string]volume.ID, error) {
	volumes, err := p.records.all()
	if err != nil {
		return nil, err
	}
	snapshots, err := p.snaps.all()
	if err != nil {
		return nil, err
	}
	out := map[string]volume.ID{}
	for _, e := range volumes {
		out[volumeKey(e.Spec.ID)] = e.family()
	}
	for _, e := range snapshots {
		out[snapshotKey(e.ID)] = e.Family
	}
	return out, nil
}
