package fsck

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/run"
)

// exits is a Runner whose commands end with a code; negative is no start.
type exits int

func (e exits) Run(_ context.Context, argv ...string) ([]byte, error) {
	if e == 0 {
		return nil, nil
	}
	return nil, &run.Error{Argv: argv, Code: int(e), Err: errors.New("exit")}
}

// TestCheck goes through the exit codes of e2fsck(8).
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		exit exits
		says string // "" is no error
	}{
		{"clean", 0, ""},
		{"repaired", 1, ""},
		{"repaired, reboot wanted", 3, "e2fsck -p /dev/x"},
		{"damaged", 4, "run e2fsck by hand"},
		{"repaired in part", 5, "run e2fsck by hand"},
		{"operational error", 8, "e2fsck -p /dev/x"},
		{"not installed", -1, "e2fsck -p /dev/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := check(t.Context(), c.exit, "-p", "/dev/x")
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := Prepare(t.Context(), exits(8), "/dev/x", "xfs"); err != nil {
		t.Errorf("XFS needs no command: %v", err)
	}
}
