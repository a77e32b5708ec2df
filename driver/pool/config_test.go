package pool

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/volume"
)

func TestParseConfig(t *testing.T) {
	cfg, err := ParseConfig([]byte(`
pools:
- name: fast
  path: /mnt/fast
- name: bulk
  path: /mnt/bulk
  backend: directory
  quota: none
  reserve: 5%
  overcommit: 1.5
  shared: true
  requireMount: false
- {name: third, path: /mnt/third, reserve: 10Gi, backend: image}
- name: raw
  path: /mnt/raw
  backend: device
  devices: [/dev/disk/by-id/nvme-*, /dev/sdb]
- {name: fourth, path: /mnt/fourth, backend: directory, quotaGrace: 24h}
`))
	if err != nil || len(cfg.Refused) > 0 {
		t.Fatalf("%v, refused %v", err, cfg.Refused)
	}
	want := []PoolConfig{
		{Name: "fast", Path: "/mnt/fast", Backend: BackendAuto, Quota: QuotaProject, Overcommit: 1, RequireMount: true, Line: 3},
		{Name: "bulk", Path: "/mnt/bulk", Backend: BackendDirectory, Quota: QuotaNone, Reserve: Reserve{Percent: 5}, Overcommit: 1.5, Shared: true, Line: 5},
		{Name: "third", Path: "/mnt/third", Backend: BackendImage, Quota: QuotaProject, Reserve: Reserve{Bytes: 10 << 30}, Overcommit: 1, RequireMount: true, Line: 13},
		{Name: "raw", Path: "/mnt/raw", Backend: BackendDevice, Quota: QuotaProject, Overcommit: 1, RequireMount: true, Devices: []string{"/dev/disk/by-id/nvme-*", "/dev/sdb"}, Line: 14},
		{Name: "fourth", Path: "/mnt/fourth", Backend: BackendDirectory, Quota: QuotaProject, QuotaGrace: 24 * time.Hour, Overcommit: 1, RequireMount: true, Line: 18},
	}
	for i, w := range want {
		if !reflect.DeepEqual(cfg.Pools[i], w) {
			t.Errorf("pool %d: %+v, want %+v", i, cfg.Pools[i], w)
		}
	}
}

// TestRefusals: each pool is refused by itself, with line, reason and a way
// out, and the good one beside it serves.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, pool, reason, says string
		line                     int
	}{
		{"unknown key", "- name: bad\n  path: /b\n  colour: red", ReasonConfig, `unknown key "colour"; the keys are name, path`, 6},
		{"key twice", "- name: bad\n  path: /b\n  path: /c", ReasonConfig, "first in line 5", 6},
		{"no name", "- path: /b", ReasonConfig, "has no name", 4},
		{"no path", "- name: bad", ReasonConfig, "has no path", 4},
		{"bad name", "- name: Bad_Name\n  path: /b", ReasonConfig, "not a DNS label", 4},
		{"number as name", "- name: 7\n  path: /b", ReasonConfig, "quote it", 4},
		{"relative path", "- name: bad\n  path: b/c", ReasonConfig, "begin it with /", 5},
		{"path climbs", "- name: bad\n  path: /b/../c", ReasonConfig, "not clean", 5},
		{"path ends in slash", "- name: bad\n  path: /b/", ReasonConfig, "not clean", 5},
		{"root", "- name: bad\n  path: /", ReasonConfig, "is the root", 5},
		{"path is a list", "- name: bad\n  path: [/b]", ReasonConfig, "one plain value", 5},
		{"bad backend", "- name: bad\n  path: /b\n  backend: zfs", ReasonConfig, "not one of auto, btrfs, directory", 6},
		{"bad quota", "- name: bad\n  path: /b\n  backend: directory\n  quota: user", ReasonConfig, "not one of project, none", 7},
		{"grace of auto", "- name: bad\n  path: /b\n  quotaGrace: 24h", ReasonConfig, "for backend: directory with project quotas", 6},
		{"grace without quotas", "- name: bad\n  path: /b\n  backend: directory\n  quota: none\n  quotaGrace: 24h", ReasonConfig, "for backend: directory with project quotas", 8},
		{"bad grace", "- name: bad\n  path: /b\n  backend: directory\n  quotaGrace: 1d", ReasonConfig, "write it like 24h", 7},
		{"no grace", "- name: bad\n  path: /b\n  backend: directory\n  quotaGrace: 0s", ReasonConfig, "write it like 24h", 7},
		{"quota of images", "- name: bad\n  path: /b\n  backend: image\n  quota: none", ReasonConfig, "for backend: directory only", 7},
		{"quota of auto", "- name: bad\n  path: /b\n  quota: none", ReasonConfig, "for backend: directory only", 6},
		{"reserve of everything", "- name: bad\n  path: /b\n  reserve: 100%", ReasonConfig, "below 100", 6},
		{"negative reserve", "- name: bad\n  path: /b\n  reserve: -1Gi", ReasonConfig, "10Gi", 6},
		{"bad reserve", "- name: bad\n  path: /b\n  reserve: some", ReasonConfig, "10Gi", 6},
		{"overcommit below one", "- name: bad\n  path: /b\n  overcommit: 0.5", ReasonConfig, "from 1", 6},
		{"overcommit is not a number", "- name: bad\n  path: /b\n  overcommit: NaN", ReasonConfig, "from 1", 6},
		{"shared is not a bool", "- name: bad\n  path: /b\n  shared: maybe", ReasonConfig, "true or false", 6},
		{"shared images", "- name: bad\n  path: /b\n  backend: image\n  shared: true", ReasonConfig, "use backend: directory", 7},
		{"devices of nothing", "- name: bad\n  path: /b\n  backend: device", ReasonConfig, "need each other", 4},
		{"devices of images", "- name: bad\n  path: /b\n  backend: image\n  devices: [/dev/sda]", ReasonConfig, "need each other", 4},
		{"devices are no list", "- name: bad\n  path: /b\n  backend: device\n  devices: /dev/sda", ReasonConfig, "is a list of devices", 7},
		{"no device", "- name: bad\n  path: /b\n  backend: device\n  devices: []", ReasonConfig, "is a list of devices", 7},
		{"device in a device", "- name: bad\n  path: /b\n  backend: device\n  devices: [[/dev/sda]]", ReasonConfig, "plain values", 7},
		{"device elsewhere", "- name: bad\n  path: /b\n  backend: device\n  devices: [/tmp/sda]", ReasonConfig, "below /dev", 7},
		{"device climbs", "- name: bad\n  path: /b\n  backend: device\n  devices: [/dev/../sda]", ReasonConfig, "below /dev", 7},
		{"device is all of them", "- name: bad\n  path: /b\n  backend: device\n  devices: [/dev]", ReasonConfig, "below /dev", 7},
		{"device is no pattern", "- name: bad\n  path: /b\n  backend: device\n  devices: ['/dev/sd[a']", ReasonConfig, "no pattern", 7},
		{"device twice", "- name: bad\n  path: /b\n  backend: device\n  devices: [/dev/sda, /dev/sda]", ReasonConfig, "twice", 7},
		{"reserve of devices", "- name: bad\n  path: /b\n  backend: device\n  reserve: 5%\n  devices: [/dev/sda]", ReasonConfig, "whole disk", 4},
		{"name taken", "- name: good\n  path: /b", ReasonDuplicate, "line 2", 4},
		{"path taken", "- name: bad\n  path: /a", ReasonOverlap, "pool good in line 2", 4},
		{"path within another's", "- name: bad\n  path: /a/b", ReasonOverlap, "overlap", 4},
		{"not a mapping", "- bad", ReasonConfig, "keys name and path", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := ParseConfig([]byte("pools:\n- name: good\n  path: /a\n" + c.pool + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.Pools) != 1 || cfg.Pools[0].Name != "good" {
				t.Errorf("serving: %+v", cfg.Pools)
			}
			if len(cfg.Refused) != 1 {
				t.Fatalf("refused: %+v", cfg.Refused)
			}
			r := cfg.Refused[0]
			if r.Reason != c.reason || r.Line != c.line || !strings.Contains(r.Message, c.says) {
				t.Errorf("got %+v, want line %d, %s, %q", r, c.line, c.reason, c.says)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comment": "# nothing", "not YAML": "pools: [", "a list": "- name: a", "no pools": "{}",
		"another key": "pool:\n- name: a", "a key more": "pools: []\nextra: 1", "not a list": "pools: {}",
		"two documents": "pools: []\n---\npools: []", "twice": "pools: []\npools: []",
	} {
		t.Run(name, func(t *testing.T) {
			if cfg, err := ParseConfig([]byte(text)); !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("got %+v, %v", cfg, err)
			}
		})
	}
	if cfg, err := ParseConfig([]byte("pools:\n")); err != nil || len(cfg.Pools) > 0 {
		t.Errorf("no pools at all: %+v, %v", cfg, err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("pools:\n- name: a\n  path: /a\n"))
	f.Add([]byte("pools: [{name: a, path: /a, reserve: 5%}, {name: a, path: /a/b}]"))
	f.Add([]byte("a: &x [*x]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err != nil {
			return
		}
		names := map[string]bool{}
		for i, p := range cfg.Pools {
			if _, err := volume.ParseID(p.Name); err != nil || names[p.Name] {
				t.Errorf("name %q", p.Name)
			}
			names[p.Name] = true
			if p.Path[0] != os.PathSeparator || strings.Contains(p.Path, "/../") || !(p.Overcommit >= 1) || p.Reserve.Of(1<<40) < 0 {
				t.Errorf("%+v", p)
			}
			for _, q := range cfg.Pools[:i] {
				if within(p.Path, q.Path) || within(q.Path, p.Path) {
					t.Errorf("%s and %s overlap", p.Path, q.Path)
				}
			}
		}
	})
}
