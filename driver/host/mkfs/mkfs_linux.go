package mkfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plinth-csi/plinth/driver/host/run"
	"golang.org/x/sys/unix"
)

// ErrNotBlank says that something is where a filesystem was to be made.
var ErrNotBlank = errors.New("it is not blank, and is not formatted")

// Wish is the filesystem that Format makes.
type Wish struct {
	FSType  string
	Options []string // those that Check allows
	UUID    string   // as in RFC 9562; empty for one that mkfs chooses
	Zeros   bool     // all of where it is made reads as zeros
}

// Format makes a filesystem in an open file or on an open device. It formats
// nothing that holds anything: ErrNotBlank if libblkid knows what is there.
//
// Nothing is discarded: a file is new, and whoever gives a disk discards it
// before. Where all reads as zeros, ext4 need not clear its tables, neither now
// nor in the background later. With metadata_csum_seed a copy gets another UUID
// by its superblock alone (ext4(5)). 4096-byte sectors fit every disk below.
func Format(ctx context.Context, r run.Runner, f *os.File, w Wish) error {
	argv, err := arguments(w)
	if err != nil {
		return err
	}
	// By descriptor: the name may be moved, the open file is the one.
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
	for until := time.Now().Add(patience); ; {
		if err := blank(ctx, r, f, path); err != nil {
			return err
		}
		_, err := r.Run(ctx, append(argv, path)...)
		if !busy(err) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// A command that this process starts has a copy of every descriptor until it
// runs, and so has, for a moment, a device that was opened for one alone and
// closed. mkfs refuses it then before it writes, and is asked again.
const (
	patience = 10 * time.Second
	pause    = 50 * time.Millisecond
)

// busy says whether mkfs was refused its device.
func busy(err error) bool {
	var e *run.Error
	return errors.As(err, &e) && (strings.Contains(e.Output, "in use by the system") || strings.Contains(e.Output, "Device or resource busy"))
}

// arguments are ours and, after them, those that were chosen: the later of
// two wins, but for those that add up.
func arguments(w Wish) ([]string, error) {
	chosen, err := parse(w.FSType, w.Options)
	if err != nil {
		return nil, err
	}
	argv, adds := []string{"mkfs.xfs", "-q", "-f", "-K"}, []string{"-m"}
	ours := map[string]string{"-s": "size=4096"}
	if w.UUID != "" {
		ours["-m"] = "uuid=" + w.UUID
	}
	if w.FSType == "ext4" {
		argv, adds = []string{"mkfs.ext4", "-q", "-F"}, []string{"-E", "-O"}
		ours = map[string]string{"-b": "4096", "-m": "0", "-O": "metadata_csum_seed", "-E": "nodiscard"}
		if w.Zeros {
			ours["-E"] += ",assume_storage_prezeroed=1"
		}
		if w.UUID != "" {
			ours["-U"] = w.UUID
		}
	}
	for letter, text := range chosen {
		if before, both := ours[letter]; both && slices.Contains(adds, letter) {
			text = before + "," + text
		}
		ours[letter] = text
	}
	for _, letter := range slices.Sorted(maps.Keys(ours)) {
		argv = append(argv, letter, ours[letter])
	}
	return argv, nil
}

// blank makes sure that nothing is in a file or on a device: it has no byte
// that was ever written (SEEK_DATA, lseek(2)), or else libblkid knows nothing
// of it. Without an answer it counts as not blank.
func blank(ctx context.Context, r run.Runner, f *os.File, path string) error {
	if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
		return nil
	}
	found, err := Probe(ctx, r, path)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotBlank, f.Name(), err)
	}
	if found.What != "" {
		return fmt.Errorf("%w: blkid finds on %s: %s", ErrNotBlank, f.Name(), found.What)
	}
	return nil
}

// Found is what libblkid finds; all empty is nothing.
type Found struct {
	What string // for people: the filesystem, or what else it is
	UUID string
}

// The exit codes of blkid(8).
const (
	blkidNothing    = 2
	blkidAmbivalent = 8
)

// Probe asks libblkid what is in a file or on a device, past its cache. What
// belongs to the partition table that a partition is listed in does not count.
func Probe(ctx context.Context, r run.Runner, path string) (Found, error) {
	out, err := r.Run(ctx, "blkid", "-p", "-o", "export", "--", path)
	var failed *run.Error
	switch {
	case errors.As(err, &failed) && failed.Code == blkidNothing && len(out) == 0:
		return Found{}, nil
	case errors.As(err, &failed) && failed.Code == blkidAmbivalent:
		return Found{What: "more than one thing (blkid -p tells)"}, nil
	case err != nil:
		return Found{}, err
	}
	var f Found
	var others []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, "=")
		switch {
		case key == "TYPE":
			f.What = value
		case key == "PTTYPE":
			f.What = "a partition table (" + value + ")"
		case key == "UUID":
			f.UUID = value
		case line != "" && key != "DEVNAME" && !strings.HasPrefix(key, "PART_ENTRY_"):
			others = append(others, line)
		}
	}
	if f.What == "" {
		f.What = strings.Join(others, " ")
	}
	return f, nil
}
