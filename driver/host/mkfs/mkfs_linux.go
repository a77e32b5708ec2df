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

	"github.com/plinth-csi/plinth/driver/host/run"
	"golang.org/x/sys/unix"
)

// ErrNotBlank says that something is where a filesystem was to be made.
var ErrNotBlank = errors.New("it is not blank, and is not formatted")

// Format makes a filesystem in an open file or on an open device, with options
// that Check allows. It formats nothing that holds anything: ErrNotBlank if
// libblkid knows what is there.
//
// zeros says that all of it reads as zeros: then nothing need be discarded, and
// ext4 need not clear its tables, neither now nor in the background later. With
// metadata_csum_seed a copy gets another UUID by its superblock alone
// (ext4(5)). 4096-byte sectors fit every disk below.
func Format(ctx context.Context, r run.Runner, f *os.File, fsType string, options []string, zeros bool) error {
	argv, err := arguments(fsType, options, zeros)
	if err != nil {
		return err
	}
	// By descriptor: the name may be moved, the open file is the one.
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
	if err := blank(ctx, r, f, path); err != nil {
		return err
	}
	_, err = r.Run(ctx, append(argv, path)...)
	return err
}

// arguments are ours and, after them, those that were chosen: the later of
// two wins, but for -E and -O of ext4, which add up.
func arguments(fsType string, options []string, zeros bool) ([]string, error) {
	chosen, err := parse(fsType, options)
	if err != nil {
		return nil, err
	}
	argv := []string{"mkfs.xfs", "-q", "-f"}
	ours := map[string]string{"-s": "size=4096"}
	switch {
	case fsType == "ext4":
		argv = []string{"mkfs.ext4", "-q", "-F"}
		ours = map[string]string{"-b": "4096", "-m": "0", "-O": "metadata_csum_seed"}
		if zeros {
			ours["-E"] = "nodiscard,assume_storage_prezeroed=1"
		}
	case zeros:
		argv = append(argv, "-K")
	}
	for letter, text := range chosen {
		if before, both := ours[letter]; both && (letter == "-E" || letter == "-O") {
			text = before + "," + text
		}
		ours[letter] = text
	}
	for _, letter := range slices.Sorted(maps.Keys(ours)) {
		argv = append(argv, letter, ours[letter])
	}
	return argv, nil
}

// blank makes sure that nothing is in a file: it has no byte that was ever
// written (SEEK_DATA, lseek(2)), or else libblkid knows nothing of it. Without
// an answer it counts as not blank.
func blank(ctx context.Context, r run.Runner, f *os.File, path string) error {
	if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
		return nil
	}
	out, err := r.Run(ctx, "blkid", "-p", "-o", "export", "--", path)
	var failed *run.Error
	if errors.As(err, &failed) && failed.Code == blkidNothing && len(out) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotBlank, f.Name(), err)
	}
	return fmt.Errorf("%w: blkid finds on %s: %s", ErrNotBlank, f.Name(), strings.Join(strings.Fields(string(out)), " "))
}

// blkidNothing is the exit code of blkid(8) when it has found nothing; 8 is
// for too much, from which it cannot tell what it is.
const blkidNothing = 2
