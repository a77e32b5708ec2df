package pool

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

func sampleRecord() record {
	return record{
		Version: recordVersion, State: ready,
		Spec: volume.Spec{ID: "pvc-1", Size: 1 << 30, Mode: volume.Filesystem, FSType: "ext4"},
		Name: "pvc-1", Pool: "fast", AccessModes: []volume.AccessMode{volume.ReadWriteOnce},
		Labels: map[string]string{"claim": "data"}, Cluster: "c1", Exposed: true,
		CreatedAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	data := encoded(t, sampleRecord())
	e := decodeRecord("pvc-1", data)
	if e.broken != "" || !reflect.DeepEqual(e.record, sampleRecord()) {
		t.Errorf("got %+v", e)
	}
}

// TestBrokenRecords: whatever is wrong, the volume is unavailable, says why,
// and keeps its reservation as far as that can be read.
func TestBrokenRecords(t *testing.T) {
	good := encoded(t, sampleRecord())
	for _, c := range []struct {
		name, old, new, says string
		reserved             int64
	}{
		{"empty", string(good), "", "EOF", 0},
		{"cut short", string(good), string(good[:len(good)/2]), "", 0},
		{"newer", `"version": 3`, `"version": 4`, "version 4", 1 << 30},
		{"newer with a field", `"version": 3`, `"version": 4, "snapshotOf": "x"`, "snapshotOf", 1 << 30},
		{"another volume's", `"id": "pvc-1"`, `"id": "../../etc"`, "record of volume", 1 << 30},
		{"unknown state", `"ready"`, `"melting"`, "unknown state", 1 << 30},
		{"no size", `"size": 1073741824`, `"size": -5`, "sizes", 0},
		{"more behind it", "}\n", "} {}\n", "more after", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := strings.Replace(string(good), c.old, c.new, 1)
			if c.name == "more behind it" {
				data = string(good) + "{}"
			}
			e := decodeRecord("pvc-1", []byte(data))
			if e.broken == "" || !strings.Contains(e.broken, c.says) {
				t.Errorf("broken: %q", e.broken)
			}
			if e.Spec.ID != "pvc-1" || e.reserved() != c.reserved {
				t.Errorf("id %s, reserved %d, want %d", e.Spec.ID, e.reserved(), c.reserved)
			}
		})
	}
}

// TestBrokenRecordIsKept: a volume with a broken record counts, cannot be
// used, made again or deleted, and its file stays as it is; so do strangers.
func TestBrokenRecordIsKept(t *testing.T) {
	dir := t.TempDir()
	m := open(t, testOptions(dir))
	create(t, m, "a", 1<<30)
	m.Close()
	file := filepath.Join(dir, recordsDir, "a.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), `"version": 3`, `"version": 9`, 1)
	stranger := filepath.Join(dir, recordsDir, "notes.txt")
	for path, text := range map[string]string{file: newer, stranger: "mine"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m = open(t, testOptions(dir))
	for what, err := range map[string]error{
		"get":    second(m.Get(t.Context(), "a")),
		"create": second(m.Create(t.Context(), request("a", 1<<30))),
		"delete": m.Delete(t.Context(), "a"),
		"expand": second(m.Expand(t.Context(), "a", 2<<30)),
		"attach": second(m.Attach(t.Context(), "a")),
	} {
		if !errors.Is(err, volume.ErrPoolUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	st := m.Pools(t.Context())[0]
	if st.Reserved != 1<<30 || st.Volumes != 1 || st.State != volume.PoolReady {
		t.Errorf("status %+v", st)
	}
	for _, says := range []string{"version 9", "notes.txt"} {
		if !strings.Contains(st.Message, says) {
			t.Errorf("message %q does not tell of %s", st.Message, says)
		}
	}
	m.Close()
	for path, text := range map[string]string{file: newer, stranger: "mine"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%s was touched: %q, %v", path, data, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzDecodeRecord(f *testing.F) {
	f.Add(encoded(f, sampleRecord()))
	f.Add([]byte(`{"version":4,"spec":{"size":5}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := decodeRecord("pvc-1", data)
		if e.Spec.ID != "pvc-1" || e.reserved() < 0 {
			t.Errorf("%+v", e)
		}
		if e.broken == "" && (e.Spec.Size <= 0 || e.Name == "") {
			t.Errorf("%+v is whole", e)
		}
	})
}

func encoded(t testing.TB, r any) []byte {
	t.Helper()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}
