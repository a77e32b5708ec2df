package pool

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// scrubbing is a memory backend that says that it scrubs, and what it was
// asked to.
type scrubbing struct {
	backend.Opened
	cannot, fails error
	scrubbed      []volume.ID
}

func (s *scrubbing) Scrubs() error { return s.cannot }

func (s *scrubbing) Scrub(ctx context.Context, id volume.ID) error {
	if s.fails != nil {
		return s.fails
	}
	s.scrubbed = append(s.scrubbed, id)
	return s.Remove(ctx, id)
}

func scrubbingPool(t *testing.T, dir string) (Options, *scrubbing) {
	o, s := testOptions(dir), &scrubbing{}
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		s.Opened = b
		return s, err
	}}
	return o, s
}

func TestScrub(t *testing.T) {
	o, s := scrubbingPool(t, t.TempDir())
	m := open(t, o)
	req := request("secret", 1<<20)
	req.OnDelete = volume.Scrub
	v, err := m.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	plain := create(t, m, "plain", 1<<20)
	_, err = m.Create(t.Context(), request("secret", 1<<20))
	if !errors.Is(err, volume.ErrExists) {
		t.Errorf("asked for again without scrub: %v", err)
	}
	s.fails = volume.ErrInUse
	if err := m.Delete(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("delete in use: %v", err)
	}
	if _, err := m.Get(t.Context(), v.ID); err != nil {
		t.Errorf("its deletion was not granted, and: %v", err)
	}
	s.fails = errors.New("the device is slow")
	if err := m.Delete(t.Context(), v.ID); err == nil {
		t.Error("deleted although it was not scrubbed")
	}
	m.Close()
	s.fails = nil
	m = open(t, o) // which goes on with what was begun
	if err := m.Delete(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.scrubbed, []volume.ID{v.ID}) {
		t.Errorf("scrubbed are %q", s.scrubbed)
	}
	if err := m.Delete(t.Context(), plain.ID); err != nil || len(s.scrubbed) != 1 {
		t.Errorf("plain deletion: %v, scrubbed are %q", err, s.scrubbed)
	}
}

func TestScrubIsRefused(t *testing.T) {
	req := request("secret", 1<<20)
	req.OnDelete = volume.Scrub
	cannot, s := scrubbingPool(t, t.TempDir())
	s.cannot = volume.ErrUnsupported
	for name, o := range map[string]Options{"by the backend": testOptions(t.TempDir()), "by the device": cannot} {
		t.Run(name, func(t *testing.T) {
			m := open(t, o)
			if _, err := m.Create(t.Context(), req); !errors.Is(err, volume.ErrUnsupported) {
				t.Errorf("got %v", err)
			}
			if list, err := m.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("left: %v, %v", list, err)
			}
		})
	}
	req.OnDelete = "shred"
	if _, err := open(t, testOptions(t.TempDir())).Create(t.Context(), req); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("onDelete: shred: %v", err)
	}
}
