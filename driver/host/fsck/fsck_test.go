package fsck

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
		{"damaged", 4, "e2fsck -f /dev/x"},
		{"repaired in part", 5, "e2fsck -f /dev/x"},
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
	dev := filepath.Join(t.TempDir(), "dev")
	for content, says := range map[string]string{xfsMagic + "more": "", "XFS": "EOF", "ABCDEF": "xfs_repair " + dev} {
		if err := os.WriteFile(dev, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Prepare(t.Context(), exits(8), dev, xfs)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("XFS that begins with %q: %v", content, err)
		}
	}
	if err := Explain(unix.EUCLEAN, dev, xfs); !errors.Is(err, unix.EUCLEAN) || !strings.Contains(err.Error(), "xfs_repair "+dev) {
		t.Errorf("explained: %v", err)
	}
	if err := Explain(unix.EIO, dev, xfs); err != unix.EIO { //nolint:errorlint // exactly that
		t.Errorf("explained: %v", err)
	}
}
