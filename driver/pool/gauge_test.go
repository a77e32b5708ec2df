package pool

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestGauges: the pools of Pools, each with its volumes and what they hold; a
// pool that does not serve, and one that the file only names, say so.
func TestGauges(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Config.Pools = append(o.Config.Pools, PoolConfig{Name: "gone", Path: filepath.Join(t.TempDir(), "none"), Backend: BackendMemory, Overcommit: 1, Line: 5})
	o.Config.Refused = []Refusal{{Name: "odd", Line: 9, Reason: ReasonConfig}}
	m := open(t, o)
	r := request("data", 1<<20)
	r.Labels = map[string]string{"claim": "data"}
	v, err := m.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	b := request("raw", 1<<20)
	b.Mode = volume.Block
	if _, err := m.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	src, err := m.Attach(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src.Dir, "file"), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}

	pools := m.Pools(t.Context())
	gauges := m.Gauges()
	if len(gauges) != 3 || len(pools) != 3 {
		t.Fatalf("%d gauges of %d pools", len(gauges), len(pools))
	}
	for i, g := range gauges {
		got := g.Read(t.Context())
		if g.Pool != pools[i].Name || got.Pool.Name != g.Pool || got.Pool.State != pools[i].State || got.Pool.Reason != pools[i].Reason || got.Pool.Total != pools[i].Total {
			t.Errorf("gauge %s reads %+v, the pool is %+v", g.Pool, got.Pool, pools[i])
		}
		if got.Pool.State != volume.PoolReady && len(got.Volumes) > 0 {
			t.Errorf("pool %s is %s and has %v", g.Pool, got.Pool.State, got.Volumes)
		}
	}
	got := gauges[0].Read(t.Context())
	if len(got.Volumes) != 2 {
		t.Fatalf("volumes %+v", got.Volumes)
	}
	if data := got.Volumes[0]; data.Labels["claim"] != "data" || data.Size != 1<<20 || data.Usage == nil || data.Usage.UsedBytes < 8192 {
		t.Errorf("volume %+v uses %+v", data, data.Usage)
	}
	if raw := got.Volumes[1]; raw.Usage != nil {
		t.Errorf("a Block volume uses %+v", raw.Usage)
	}
	if p := got.Pool; p.Free <= 0 || p.Free >= p.Total || p.Reserved != 2<<20 {
		t.Errorf("pool %+v", p)
	}
}
