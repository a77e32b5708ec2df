package pool

import (
	"errors"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestDeleteEphemeral: an ephemeral volume goes, whole or half made, and no
// other does.
func TestDeleteEphemeral(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	inline := request("inline", 1<<20)
	inline.Ephemeral, inline.Target = true, "/pod"
	cut := &cutter{n: -1}
	m := open(t, cutOptions(dir, cut))
	lasting := create(t, m, "lasting", 1<<20)
	v, err := m.Create(ctx, inline)
	if err != nil || !v.Ephemeral {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := m.Create(ctx, request("inline", 1<<20)); !errors.Is(err, volume.ErrExists) {
		t.Errorf("one that lasts by the same name: %v", err)
	}
	if all, err := m.Ephemeral(ctx); err != nil || len(all) != 1 || all[0].ID != v.ID || all[0].Target != "/pod" {
		t.Errorf("ephemeral: %+v, %v", all, err)
	}
	elsewhere := inline
	elsewhere.Target = "/other"
	if _, err := m.Create(ctx, elsewhere); !errors.Is(err, volume.ErrExists) {
		t.Errorf("at another target: %v", err)
	}
	for _, id := range []volume.ID{lasting.ID, v.ID, v.ID, "absent"} {
		if err := m.DeleteEphemeral(ctx, id); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
	}
	if _, err := m.Get(ctx, lasting.ID); err != nil {
		t.Error(err)
	}

	// Cut after its bytes were promised and before they are there.
	cut.n = 1
	if _, err := m.Create(ctx, inline); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	cut.cut, cut.n = false, -1
	if f, err := m.find(v.ID); err != nil || f.entry.State != creating {
		t.Fatalf("%+v, %v", f.entry, err)
	} else {
		f.release()
	}
	if err := m.DeleteEphemeral(ctx, v.ID); err != nil {
		t.Error(err)
	}
	if f, err := m.find(v.ID); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("it is there: %+v", f.entry)
	}
}
