package device

import (
	"bytes"
	"fmt"
	"os"
)

// A mark is the last markSize bytes of a disk: markPrefix, the text of the
// claim, zeros. Whoever uses the volume may write over it: it stands for the
// volume while nothing else on the disk does.
const (
	markSize   = 4096
	markPrefix = "plinth.dev: this disk belongs to a volume, claim "
)

// setMark is durable when it returns.
func setMark(f *os.File, size int64, mark string) error {
	buf := make([]byte, markSize)
	copy(buf, markPrefix+mark)
	if _, err := f.WriteAt(buf, size-markSize); err != nil {
		return fmt.Errorf("write the mark on %s: %w", f.Name(), err)
	}
	return f.Sync()
}

// markOf reads a mark; "" if there is none.
func markOf(f *os.File, size int64) string {
	buf := make([]byte, markSize)
	if _, err := f.ReadAt(buf, size-markSize); err != nil {
		return ""
	}
	mark, ok := bytes.CutPrefix(bytes.TrimRight(buf, "\x00"), []byte(markPrefix))
	if !ok {
		return ""
	}
	return string(mark)
}
