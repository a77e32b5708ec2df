package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

// Pause is the image of the container that holds a pod's namespaces.
const Pause = "registry.k8s.io/pause:3.10"

// busyboxNames are what manifests and the upstream tests call the same image.
var busyboxNames = []string{"docker.io/library/busybox:1.37", "registry.k8s.io/e2e-test-images/busybox:1.37.0-2"}

const (
	busyboxBinary = "/usr/bin/busybox" // Debian's busybox-static installs it here or in /bin, which is the same
	imagePath     = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Boot returns the archive of the images every node needs. It is made once for
// each version of what is in it. source is the folder of this Go module.
func Boot(ctx context.Context, cache, source string) (string, error) {
	busybox, err := os.ReadFile(busyboxBinary)
	if err != nil {
		return "", fmt.Errorf("read busybox: %w", err)
	}
	pauseSource, err := os.ReadFile(filepath.Join(source, "internal/images/pause/main.go"))
	if err != nil {
		return "", fmt.Errorf("read the source of pause: %w", err)
	}
	sum := sha256.New()
	sum.Write(busybox)
	sum.Write(pauseSource)
	fmt.Fprint(sum, Pause, busyboxNames, imagePath)
	path := filepath.Join(cache, "images", fmt.Sprintf("boot-%x.tar", sum.Sum(nil)[:6]))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	pause, err := buildPause(ctx, source)
	if err != nil {
		return "", err
	}
	applets, err := run.Output(ctx, busyboxBinary, "--list")
	if err != nil {
		return "", err
	}
	return path, Write(path,
		Image{Names: []string{Pause}, Entrypoint: []string{"/pause"}, Entries: []Entry{{Path: "pause", Content: pause, Mode: 0o755}}},
		Image{Names: busyboxNames, Env: []string{imagePath}, Cmd: []string{"sh"}, Entries: busyboxEntries(busybox, strings.Fields(string(applets)))},
	)
}

func buildPause(ctx context.Context, source string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "pause-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	out := filepath.Join(dir, "pause")
	_, err = run.Command{
		Argv: []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./internal/images/pause"},
		Dir:  source,
		Env:  []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"},
	}.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("build pause: %w", err)
	}
	return os.ReadFile(out)
}

func busyboxEntries(binary []byte, applets []string) []Entry {
	entries := []Entry{
		{Path: "bin/", Mode: 0o755},
		{Path: "bin/busybox", Content: binary, Mode: 0o755},
	}
	for _, a := range applets {
		if a != "busybox" {
			entries = append(entries, Entry{Path: "bin/" + a, Link: "busybox", Mode: 0o777})
		}
	}
	for _, dir := range []string{"etc/", "home/", "root/", "usr/", "usr/bin/", "usr/sbin/", "sbin/", "var/", "var/run/"} {
		entries = append(entries, Entry{Path: dir, Mode: 0o755})
	}
	return append(entries,
		Entry{Path: "tmp/", Mode: 0o1777},
		Entry{Path: "usr/bin/env", Link: "../../bin/busybox", Mode: 0o777},
		Entry{Path: "etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"), Mode: 0o644},
		Entry{Path: "etc/group", Content: []byte("root:x:0:\ntty:x:5:\nnobody:x:65534:\n"), Mode: 0o644},
		Entry{Path: "etc/nsswitch.conf", Content: []byte("hosts: files dns\n"), Mode: 0o644},
	)
}
