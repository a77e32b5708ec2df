package mounts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
)

// What a StorageClass may list as mount options. Those of a mount are good
// everywhere; those of a filesystem need one of the volume's own. Every volume
// is mounted nosuid and nodev; suid and dev are not among them.
func mountOptions() []string {
	return []string{"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime"}
}

func filesystemOptions() []string {
	return []string{"nodiratime", "strictatime", "lazytime", "sync", "dirsync", "discard", "nodiscard"}
}

// checkOptions refuses what is not on the lists.
func checkOptions(v volume.Volume, u volume.Use, src backend.Source) error {
	allowed := mountOptions()
	if v.Mode == volume.Block {
		if len(u.Options) > 0 {
			return fmt.Errorf("%w: mount option %.60q for volume %s, which is a block device and takes none", volume.ErrInvalid, u.Options[0], v.ID)
		}
		return nil
	}
	if src.Device != "" {
		allowed = append(allowed, filesystemOptions()...)
	}
	for _, o := range u.Options {
		if !slices.Contains(allowed, o) {
			return fmt.Errorf("%w: mount option %.60q for volume %s; the allowed ones are %s", volume.ErrInvalid, o, v.ID, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// mountFlags are the restrictions of one mount of a volume.
func mountFlags(u volume.Use) mount.Flags {
	has := func(option string) bool { return slices.Contains(u.Options, option) }
	return mount.Flags{
		ReadOnly: u.ReadOnly || has("ro"), NoSuid: true, NoDev: true,
		NoExec: has("noexec"), NoAtime: has("noatime"),
	}
}

// deviceOptions are what a filesystem on a device is mounted with.
func deviceOptions(u volume.Use) []string {
	out := append([]string{"nosuid", "nodev"}, u.Options...)
	if u.ReadOnly {
		out = append(out, "ro")
	}
	return out
}

// sameOptions is sameFlags for a volume's own filesystem as well: what was
// asked of it holds. What holds unasked may be its default.
func sameOptions(m mount.Mount, u volume.Use) error {
	if err := sameFlags(m, mountFlags(u)); err != nil {
		return err
	}
	for _, o := range []string{"sync", "dirsync", "lazytime", "discard", "nodiratime"} {
		if slices.Contains(u.Options, o) && !slices.Contains(m.Options, o) && !m.HasSuperOption(o) {
			return fmt.Errorf("%w: %s is mounted at %s already, without the option %s that is asked", volume.ErrExists, m.Source, m.Point, o)
		}
	}
	return nil
}

// sameFlags says in what a mount that is there is not what was asked
// (CSI 1.13, NodeStageVolume and NodePublishVolume: ALREADY_EXISTS).
func sameFlags(m mount.Mount, asked mount.Flags) error {
	has := func(option string) bool { return slices.Contains(m.Options, option) }
	for _, f := range []struct {
		name       string
		has, asked bool
		exact      bool // its presence without being asked differs, too
	}{
		{"ro", m.ReadOnly(), asked.ReadOnly, true},
		{"noexec", has("noexec"), asked.NoExec, true},
		{"noatime", has("noatime"), asked.NoAtime, false}, // a pool may be mounted so
	} {
		if f.asked && !f.has || f.exact && f.has && !f.asked {
			return fmt.Errorf("%w: it is mounted at %s already, with %s, asked is %s=%t", volume.ErrExists, m.Point, strings.Join(m.Options, ","), f.name, f.asked)
		}
	}
	return nil
}
