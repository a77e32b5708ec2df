//go:build root

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// content is what a slot holds that was written with a seed.
func content(seed uint64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, slotSize)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

// openSlot opens a slot of a volume that is published at target.
func openSlot(v *volumeState, target string, slot, flags int) (*os.File, error) {
	if !v.made.Block {
		return os.OpenFile(filepath.Join(target, fmt.Sprintf("slot-%d", slot)), flags, 0o600)
	}
	f, err := os.OpenFile(target, flags&^(os.O_CREATE|os.O_TRUNC), 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(int64(slot)*slotSize, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writeSlot writes durably (fsync(2) of the file and of its directory).
func writeSlot(v *volumeState, target string, slot int, seed uint64) error {
	f, err := openSlot(v, target, slot, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(content(seed))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil || v.made.Block {
		return err
	}
	dir, err := os.Open(target)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Where scribbles go: a file, or a stretch of a block device beyond its slots.
const (
	scribbleName = "scribble"
	scribbleAt   = 1 << 20
	scribbleSize = 1 << 20
)

// scribble writes something that nobody needs, and begins to write it to the
// disk, where nothing flushes it (sync_file_range(2)).
func scribble(v *volumeState, target string, seed uint64) error {
	path, flags, at := filepath.Join(target, scribbleName), os.O_WRONLY|os.O_CREATE, int64(0)
	if v.made.Block {
		path, flags, at = target, os.O_WRONLY, scribbleAt
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Repeat(content(seed), scribbleSize/slotSize), at)
	if err == nil {
		err = unix.SyncFileRange(int(f.Fd()), at, scribbleSize, unix.SYNC_FILE_RANGE_WRITE)
	}
	return errors.Join(err, f.Close())
}

// verifySlots compares what a published volume holds with what it should.
func verifySlots(v *volumeState, target string) error {
	for slot, seed := range v.slots {
		if seed == anything {
			continue
		}
		f, err := openSlot(v, target, slot, os.O_RDONLY)
		if err != nil {
			return fmt.Errorf("%w: slot %d: %w", errLost, slot, err)
		}
		data := make([]byte, slotSize)
		_, err = io.ReadFull(f, data)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%w: slot %d: %w", errLost, slot, err)
		}
		if !bytes.Equal(data, content(seed)) {
			return fmt.Errorf("%w: slot %d is not what was written", errLost, slot)
		}
	}
	return onlySlots(v, target)
}

// onlySlots finds what nobody has written: another volume's content.
func onlySlots(v *volumeState, target string) error {
	if v.made.Block {
		return nil
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	for _, e := range entries {
		var slot int
		if _, err := fmt.Sscanf(e.Name(), "slot-%d", &slot); err == nil {
			if _, ours := v.slots[slot]; ours {
				continue
			}
		}
		if e.Name() != "lost+found" && e.Name() != scribbleName {
			return fmt.Errorf("%w: it holds %s, which nobody wrote", errLost, e.Name())
		}
	}
	return nil
}
