package tools

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

// packages are all that the cluster takes from Debian, each with a file that
// shows that it is installed.
var packages = []struct{ name, file string }{
	{"runc", "/usr/sbin/runc"},
	{"containernetworking-plugins", "/usr/lib/cni/ptp"},
	{"iproute2", "/usr/sbin/ip"},
	{"iptables", "/usr/sbin/iptables"},
	{"nftables", "/usr/sbin/nft"},
	{"conntrack", "/usr/sbin/conntrack"},
	{"busybox-static", "/usr/bin/busybox"},
	{"xfsprogs", "/usr/sbin/mkfs.xfs"},
	{"btrfs-progs", "/usr/sbin/mkfs.btrfs"},
	{"e2fsprogs", "/usr/sbin/mkfs.ext4"},
	{"kmod", "/usr/bin/kmod"},
	{"procps", "/usr/bin/ps"},
	{"mount", "/usr/bin/mount"},
	{"util-linux", "/usr/bin/nsenter"},
	{"ca-certificates", "/usr/sbin/update-ca-certificates"},
}

// EnsurePackages installs what is missing from Debian, or says how to.
func EnsurePackages(ctx context.Context, progress func(format string, args ...any)) error {
	missing := Missing()
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("programs are missing; on Debian, as root, run:\n  apt-get update && %s", strings.Join(install, " "))
	}
	progress("installing %s", strings.Join(missing, " "))
	for _, argv := range [][]string{{"apt-get", "update"}, install} {
		c := run.Command{Argv: argv, Env: []string{"DEBIAN_FRONTEND=noninteractive"}}
		if _, err := c.Run(ctx); err != nil {
			return fmt.Errorf("install Debian packages: %w", err)
		}
	}
	if missing := Missing(); len(missing) > 0 {
		return fmt.Errorf("still missing after their installation: %s", strings.Join(missing, " "))
	}
	return nil
}

// Missing lists the Debian packages whose files are not there.
func Missing() []string {
	var missing []string
	for _, p := range packages {
		if _, err := os.Stat(p.file); err != nil {
			missing = append(missing, p.name)
		}
	}
	return missing
}
