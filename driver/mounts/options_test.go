package mounts

import (
	"errors"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

func TestOptions(t *testing.T) {
	dir, dev := backend.Source{Dir: "/pool/volumes/a"}, backend.Source{Device: "/dev/loop0", FSType: "ext4"}
	for _, c := range []struct {
		options string
		src     backend.Source
		ok      bool
	}{
		{"", dir, true}, {"ro noatime noexec nosuid nodev relatime rw", dir, true}, {"discard", dev, true}, {"discard", dir, false},
		{"suid", dev, false}, {"dev", dev, false}, {"exec", dir, false}, {"bind", dir, false}, {"ro,suid", dir, false},
		{"subvol=/", dev, false}, {"RO", dir, false}, {"data=journal", dev, false},
	} {
		u := volume.Use{Mode: volume.Filesystem, Options: strings.Fields(c.options)}
		err := checkOptions(volume.Volume{Spec: volume.Spec{ID: "a", Mode: volume.Filesystem}}, u, c.src)
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), "noatime")) {
			t.Errorf("%q on %+v: %v", c.options, c.src, err)
		}
	}
}

func TestFlags(t *testing.T) {
	got := mountFlags(volume.Use{Options: []string{"noexec", "noatime"}, ReadOnly: true})
	if want := (mount.Flags{ReadOnly: true, NoSuid: true, NoDev: true, NoExec: true, NoAtime: true}); got != want {
		t.Errorf("got %+v", got)
	}
	there := mount.Mount{Options: []string{"rw", "nosuid", "nodev", "noatime"}}
	for name, c := range map[string]struct {
		use  volume.Use
		same bool
	}{
		"nothing asked": {volume.Use{}, true}, "what is there": {volume.Use{Options: []string{"noatime"}}, true},
		"read-only": {volume.Use{ReadOnly: true}, false}, "noexec": {volume.Use{Options: []string{"noexec"}}, false},
	} {
		if err := sameFlags(there, mountFlags(c.use)); (err == nil) != c.same || err != nil && !errors.Is(err, volume.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTopAndHolding(t *testing.T) {
	all := []mount.Mount{
		{ID: 1, Point: "/"}, {ID: 2, Point: "/mnt"}, {ID: 3, Point: "/mnt/a"}, {ID: 4, Point: "/mnt/a"}, {ID: 5, Point: "/mnt/ab"},
	}
	for path, want := range map[string]int{"/mnt/a/x": 4, "/mnt/a": 4, "/mnt/ac": 2, "/other": 1, "/mnt/ab/": 5} {
		if got := holding(all, path); got == nil || got.ID != want {
			t.Errorf("holding %s: %+v, want %d", path, got, want)
		}
	}
	if got := top(all, "/mnt/a"); got == nil || got.ID != 4 {
		t.Errorf("top: %+v", got)
	}
	if got := top(all, "/mnt/a/x"); got != nil {
		t.Errorf("top of no mount: %+v", got)
	}
}
