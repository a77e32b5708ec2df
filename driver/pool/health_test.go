package pool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestHealth(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	for _, name := range []string{"broken", "lost", "well", "unfinished"} {
		create(t, m, name, 1<<30)
	}
	m.Close()
	if err := os.WriteFile(filepath.Join(dir, recordsDir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"volumes/lost", ".plinth/memory/lost.json"} {
		if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	m = open(t, testOptions(dir))
	m.slots()[0].pool.problems.set("unfinished", "it did not grow")
	want := map[volume.ID]volume.Health{
		"broken":     {State: volume.Inaccessible, Reason: ReasonRecord},
		"lost":       {State: volume.DataLost, Reason: ReasonNoData},
		"unfinished": {State: volume.Degraded, Reason: ReasonUnfinished},
		"well":       {State: volume.Healthy},
	}
	for id, w := range want {
		h, err := m.Health(t.Context(), id)
		if err != nil || h.ID != id || h.State != w.State || h.Reason != w.Reason || (h.Message == "") != (w.State == volume.Healthy) {
			t.Errorf("%s: %+v, %v", id, h, err)
		}
	}
	if h, err := m.Health(t.Context(), "other"); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("unknown: %+v, %v", h, err)
	}
	all, err := m.Unhealthy(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("got %+v, %v", all, err)
	}
	for i, id := range []volume.ID{"broken", "lost", "unfinished"} {
		if all[i].ID != id || all[i].Reason != want[id].Reason {
			t.Errorf("%d: %+v", i, all[i])
		}
	}
}

// TestHealthAway: what may be in a pool that does not serve is inaccessible,
// not unknown.
func TestHealthAway(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "missing"))
	m := open(t, o)
	h, err := m.Health(t.Context(), "a")
	if err != nil || h.State != volume.Inaccessible || h.Reason != ReasonPoolUnavailable || h.Message == "" {
		t.Errorf("got %+v, %v", h, err)
	}
	if all, err := m.Unhealthy(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
}
