// Command tally runs every test there is and counts them: `make test`.
//
// It runs the steps of steps.go, two at a time where they allow it, each into a
// log file of its own, reads what `go test -json` says, and ends in one line:
// N passed, N failed, N skipped. A step that cannot run counts as failed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ok, err := tally()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

func tally() (ok bool, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root, err := filepath.Abs("..")
	if err != nil {
		return false, fmt.Errorf("find the checkout: %w", err)
	}
	logs := filepath.Join(root, "out", "test-"+time.Now().UTC().Format("20060102-150405"))
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return false, fmt.Errorf("make the folder for logs: %w", err)
	}
	// A cluster that somebody works with is theirs to end.
	status := exec.CommandContext(ctx, filepath.Join(root, "test/scripts/cluster"), "status")
	if status.Run() == nil {
		os.Setenv("PLINTH_KEEP_CLUSTER", "1") //nolint:errcheck // a constant name is valid
	}
	r := &runner{root: root, logs: logs, out: os.Stdout, began: time.Now()}
	r.run(ctx, steps())
	return r.report(), nil
}
