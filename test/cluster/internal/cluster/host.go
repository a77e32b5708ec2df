package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// hostLimits are settings of the whole machine that are too low by default for
// more than two or three clusters: kubelet, containerd and others watch files.
// They are only ever raised, and stay so, for another cluster may need them.
var hostLimits = map[string]int{
	"/proc/sys/fs/inotify/max_user_instances": 8192,
	"/proc/sys/fs/inotify/max_user_watches":   524288,
}

func raiseHostLimits() error {
	for path, want := range hostLimits {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		have, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if have >= want {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(want)), 0o644); err != nil {
			return fmt.Errorf("raise a limit: %w", err)
		}
	}
	return nil
}
