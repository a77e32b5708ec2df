package pool

import (
	"context"
	"errors"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// freeingBackend frees bytes only when it is let.
type freeingBackend struct {
	backend.Opened
	begun, let chan struct{}
}

func (b freeingBackend) Remove(ctx context.Context, id volume.ID) error {
	b.begun <- struct{}{}
	select {
	case <-b.let:
		return b.Opened.Remove(ctx, id)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func freeingOptions(dir string) (Options, freeingBackend) {
	slow := freeingBackend{begun: make(chan struct{}, 10), let: make(chan struct{}, 10)}
	o := testOptions(dir)
	o.Backends = map[string]OpenBackend{BackendMemory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := openMemory(ctx, cfg)
		return freeingBackend{b, slow.begun, slow.let}, err
	}}
	return o, slow
}

// deleteShortly asks for a deletion and stops waiting when it has begun.
func deleteShortly(t *testing.T, m *Manager, slow freeingBackend, begins bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Delete(ctx, "v") }()
	if begins {
		<-slow.begun
	}
	cancel()
	if err := <-done; !errors.Is(err, volume.ErrBusy) || !errors.Is(err, context.Canceled) {
		t.Errorf("not waited for: %v", err)
	}
}

// TestSlowRemoval: a deletion that takes long goes on when nobody waits for
// it. Until its bytes are free the volume is reserved, nobody finds it and
// nobody makes it anew; whoever asks again waits on.
func TestSlowRemoval(t *testing.T) {
	o, slow := freeingOptions(t.TempDir())
	m := open(t, o)
	create(t, m, "v", 1<<30)
	create(t, m, "other", 1<<20)
	deleteShortly(t, m, slow, true)
	deleteShortly(t, m, slow, false)
	if st := m.Pools(t.Context())[0]; st.Reserved != 1<<30+1<<20 || st.Volumes != 2 {
		t.Errorf("%d bytes of %d volumes are reserved while one is freed", st.Reserved, st.Volumes)
	}
	if _, err := m.Get(t.Context(), "v"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("it can be got: %v", err)
	}
	if _, err := m.Create(t.Context(), request("v", 1<<30)); !errors.Is(err, volume.ErrBusy) {
		t.Errorf("it can be made: %v", err)
	}
	if _, err := m.Expand(t.Context(), "other", 2<<20); err != nil {
		t.Errorf("another volume: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- m.Delete(t.Context(), "v") }()
	slow.let <- struct{}{}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if st := m.Pools(t.Context())[0]; st.Reserved != 2<<20 || st.Volumes != 1 {
		t.Errorf("%d bytes of %d volumes are reserved after one is freed", st.Reserved, st.Volumes)
	}
	create(t, m, "v", 1<<30)
}

// TestRemovalCut: a pool that is closed does not wait for what is being freed,
// and neither does one that is opened; the next one ends it.
func TestRemovalCut(t *testing.T) {
	dir := t.TempDir()
	o, slow := freeingOptions(dir)
	m := open(t, o)
	create(t, m, "v", 1<<30)
	deleteShortly(t, m, slow, true)
	m.Close()

	m = open(t, o)
	if st := m.Pools(t.Context())[0]; st.State != volume.PoolReady || st.Message != "" || st.Reserved != 1<<30 {
		t.Errorf("while it goes on: %+v", st)
	}
	<-slow.begun // by the opening
	deleteShortly(t, m, slow, false)
	m.Close()

	m = open(t, testOptions(dir))
	if st := m.Pools(t.Context())[0]; st.Reserved != 0 || st.Volumes != 0 {
		t.Errorf("at the end: %+v", st)
	}
}
