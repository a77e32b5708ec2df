package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

// engine is storage in memory. A call in fails returns that error once, after
// its work if the key ends in "+", as when the process is cut before it hears.
// A call in away returns that error until it is taken out.
type engine struct {
	mu      sync.Mutex
	volumes map[volume.ID]volume.Volume
	snaps   map[volume.ID]volume.Snapshot
	copied  int64 // bytes of each snapshot that are copied; 0 is all of them
	exposed map[volume.ID]bool
	imports map[volume.ID]volume.Path
	fails   map[string]error
	away    map[string]error
	pools   []volume.PoolStatus
	plain   bool  // it has no attributes
	room    int64 // what a volume can grow to, in bytes; 0 is no bound
	cut     int   // how many snapshots of groups were taken
	calls   []string
}

func newEngine() *engine {
	return &engine{volumes: map[volume.ID]volume.Volume{}, snaps: map[volume.ID]volume.Snapshot{}, exposed: map[volume.ID]bool{}, imports: map[volume.ID]volume.Path{}, fails: map[string]error{}, away: map[string]error{}}
}

func (e *engine) do(op string, id volume.ID, work func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, strings.TrimSpace(op+" "+string(id)))
	if err := e.away[op]; err != nil {
		return fmt.Errorf("%s %s: %w", op, id, err)
	}
	if err := e.fails[op]; err != nil {
		delete(e.fails, op)
		return fmt.Errorf("%s %s: %w", op, id, err)
	}
	if err := work(); err != nil {
		return err
	}
	err := e.fails[op+"+"]
	delete(e.fails, op+"+")
	return err
}

func (e *engine) Create(_ context.Context, r volume.Request) (v volume.Volume, err error) {
	err = e.do("create", r.ID, func() error {
		if _, ok := e.volumes[r.ID]; !ok {
			e.volumes[r.ID] = volume.Volume{Spec: r.Spec, Name: r.Name, Pool: r.Pool, Node: "n1", AccessModes: r.AccessModes, Labels: r.Labels}
		}
		v = e.volumes[r.ID]
		e.imports[r.ID] = r.Import
		return nil
	})
	return v, err
}

func (e *engine) Delete(_ context.Context, _ string, id volume.ID) error {
	return e.do("delete", id, func() error {
		delete(e.volumes, id)
		return nil
	})
}

func (e *engine) Get(_ context.Context, id volume.ID) (v volume.Volume, err error) {
	err = e.do("get", id, func() error {
		var ok bool
		if v, ok = e.volumes[id]; !ok {
			return volume.ErrNotFound
		}
		return nil
	})
	return v, err
}

func (e *engine) List(context.Context) (out []volume.Volume, err error) {
	err = e.do("list", "", func() error {
		for _, v := range e.volumes {
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

func (e *engine) Expand(_ context.Context, id volume.ID, size int64) (v volume.Volume, err error) {
	err = e.do("expand", id, func() error {
		v = e.volumes[id]
		if e.room != 0 && size > e.room {
			return volume.ErrNoCapacity
		}
		v.Size = max(v.Size, size)
		e.volumes[id] = v
		return nil
	})
	return v, err
}

func (e *engine) Modify(_ context.Context, id volume.ID, to volume.Attributes) (v volume.Volume, err error) {
	err = e.do("modify", id, func() error {
		if to != (volume.Attributes{}) && e.plain {
			return fmt.Errorf("pool a has no attributes: %w", volume.ErrUnsupported)
		}
		v = e.volumes[id]
		v.Attributes = to
		e.volumes[id] = v
		return nil
	})
	return v, err
}

func (e *engine) CreateSnapshot(_ context.Context, r volume.SnapshotRequest) (s volume.Snapshot, err error) {
	err = e.do("snapshot", r.ID, func() error {
		v, ok := e.volumes[r.Volume]
		if !ok {
			return fmt.Errorf("volume %s: %w", r.Volume, volume.ErrNotFound)
		}
		if _, ok := e.snaps[r.ID]; !ok {
			e.snaps[r.ID] = volume.Snapshot{ID: r.ID, Name: r.Name, Volume: r.Volume, Size: v.Size, CreatedAt: time.Unix(1e9, 0)}
		}
		s = e.progress(r.ID)
		return nil
	})
	return s, err
}

func (e *engine) GetSnapshot(_ context.Context, id volume.ID) (s volume.Snapshot, err error) {
	err = e.do("get snapshot", id, func() error {
		if _, ok := e.snaps[id]; !ok {
			return volume.ErrNotFound
		}
		s = e.progress(id)
		return nil
	})
	return s, err
}

func (e *engine) progress(id volume.ID) volume.Snapshot {
	s := e.snaps[id]
	s.Ready, s.Copied = e.copied == 0, e.copied
	return s
}

func (e *engine) DeleteSnapshot(_ context.Context, id volume.ID) error {
	return e.do("delete snapshot", id, func() error {
		delete(e.snaps, id)
		return nil
	})
}

func (e *engine) CreateGroup(_ context.Context, r volume.GroupRequest) (g volume.Group, err error) {
	err = e.do("group", r.ID, func() error {
		g = volume.Group{ID: r.ID, Name: r.Name, CreatedAt: time.Unix(1e9, 0), Ready: true}
		for _, of := range r.Volumes {
			id, name := volume.MemberID(r.Name, of)
			if _, ok := e.snaps[id]; !ok {
				e.cut++
				e.snaps[id] = volume.Snapshot{ID: id, Name: name, Volume: of, Group: r.ID, Size: 1 << 30, CreatedAt: g.CreatedAt}
			}
			g.Snapshots = append(g.Snapshots, e.progress(id))
		}
		return nil
	})
	return g, err
}

func (e *engine) DeleteGroup(_ context.Context, id volume.ID) error {
	return e.do("delete group", id, func() error {
		for k, s := range e.snaps {
			if s.Group == id {
				delete(e.snaps, k)
			}
		}
		return nil
	})
}

func (e *engine) Pools(context.Context) []volume.PoolStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.pools)
	for i := range out {
		out[i].Volumes = len(e.volumes)
	}
	return out
}

func (e *engine) Expose(_ context.Context, id volume.ID) (string, error) {
	return "/mounts/" + string(id), e.do("expose", id, func() error { e.exposed[id] = true; return nil })
}

func (e *engine) Unexpose(_ context.Context, id volume.ID) error {
	return e.do("unexpose", id, func() error { delete(e.exposed, id); return nil })
}

func (e *engine) count(call string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if strings.HasPrefix(c, call) {
			n++
		}
	}
	return n
}

func (e *engine) has(id volume.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.volumes[id]
	return ok
}

func (e *engine) Release(_ context.Context, _ string, id volume.ID, to volume.Path) (string, error) {
	return "/pool/" + string(to), e.do("release", id, func() error { delete(e.volumes, id); return nil })
}
