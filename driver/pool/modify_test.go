package pool

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// plainBackend has nothing that only some backends have.
type plainBackend struct{ backend.Opened }

func (plainBackend) Abilities() backend.Abilities {
	return backend.Abilities{Modes: []volume.Mode{volume.Filesystem}}
}

// spyBackend says what the backend was asked for last.
type spyBackend struct {
	backend.Opened
	last *volume.Spec
}

func (b spyBackend) Ensure(ctx context.Context, s volume.Spec) (volume.Info, error) {
	*b.last = s
	return b.Opened.Ensure(ctx, s)
}

func TestModify(t *testing.T) {
	var last volume.Spec
	o := testOptions(t.TempDir())
	o.Backends[BackendMemory] = func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return spyBackend{b, &last}, err
	}
	m := open(t, o)
	create(t, m, "a", 1<<30)
	want := volume.Attributes{Inodes: 1000, SoftLimit: 80}
	for range 2 {
		v, err := m.Modify(t.Context(), "a", want)
		if err != nil || v.Attributes != want || last.Attributes != want {
			t.Fatalf("%+v, %v; the backend was asked for %+v", v, err, last)
		}
	}
	if _, err := m.Expand(t.Context(), "a", 2<<30); err != nil || last.Attributes != want || last.Size != 2<<30 {
		t.Errorf("growth: %v; the backend was asked for %+v", err, last)
	}
	m.Close()
	m = open(t, o)
	if v, err := m.Get(t.Context(), "a"); err != nil || v.Attributes != want {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
	// The claim that made it may be asked for again as it was.
	if v, err := m.Create(t.Context(), request("a", 1<<30)); err != nil || v.Attributes != want {
		t.Errorf("Create of a volume that was changed since: %+v, %v", v, err)
	}
	if v, err := m.Modify(t.Context(), "a", volume.Attributes{}); err != nil || last.Attributes != (volume.Attributes{}) {
		t.Errorf("taking the limits away: %+v, %v", v, err)
	}
	for _, c := range []struct {
		id   volume.ID
		to   volume.Attributes
		want error
	}{
		{"absent", want, volume.ErrNotFound},
		{"a", volume.Attributes{Inodes: -1}, volume.ErrInvalid},
		{"a", volume.Attributes{SoftLimit: 100}, volume.ErrInvalid},
		{"a", volume.Attributes{SoftLimit: -1}, volume.ErrInvalid},
	} {
		if _, err := m.Modify(t.Context(), c.id, c.to); !errors.Is(err, c.want) {
			t.Errorf("Modify %s to %+v: %v", c.id, c.to, err)
		}
	}
}

// TestModifyFinishedAtStart: a change that the record tells of is made when
// the pool is opened; one of a volume whose data is gone makes no empty volume.
func TestModifyFinishedAtStart(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	for _, name := range []string{"a", "lost"} {
		create(t, m, name, 1<<30)
		f, err := m.findReady(volume.ID(name))
		if err != nil {
			t.Fatal(err)
		}
		r := f.entry.record
		r.ModifyTo = &volume.Attributes{Inodes: 7}
		if err := f.pool.records.put(r); err != nil {
			t.Fatal(err)
		}
		if name == "lost" {
			err = f.pool.backend.Remove(t.Context(), "lost")
		}
		f.release()
		if err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	m = open(t, testOptions(dir))
	if v, err := m.Get(t.Context(), "a"); err != nil || v.Attributes.Inodes != 7 {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
	f, err := m.findReady("lost")
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	if _, err := f.pool.backend.Get(t.Context(), "lost"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("an empty volume stands for one that was lost: %v", err)
	}
}

// TestRefusesBeforeAnythingIsMade: what a backend does not have is refused
// with the way out, and leaves no record and no bytes.
func TestRefusesBeforeAnythingIsMade(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Backends[BackendMemory] = func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return plainBackend{b}, err
	}
	m := open(t, o)
	create(t, m, "there", 1<<30)
	for name, c := range map[string]struct {
		spec volume.Spec
		says string
	}{
		"attributes":   {volume.Spec{Attributes: volume.Attributes{Inodes: 1}}, "inodes and softLimit are those of backend directory"},
		"mkfs options": {volume.Spec{MkfsOptions: []string{"-m", "1"}}, "a pool of images"},
	} {
		req := request("refused", 1<<30)
		req.Attributes, req.MkfsOptions = c.spec.Attributes, c.spec.MkfsOptions
		if _, err := m.Create(t.Context(), req); !errors.Is(err, volume.ErrUnsupported) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := m.Modify(t.Context(), "there", volume.Attributes{SoftLimit: 50})
	if !errors.Is(err, volume.ErrUnsupported) || !strings.Contains(err.Error(), "pool fast (memory)") {
		t.Errorf("Modify: %v", err)
	}
	vs, err := m.List(t.Context())
	if err != nil || len(vs) != 1 {
		t.Errorf("List: %v, %v", vs, err)
	}
}
