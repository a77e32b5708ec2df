package crash

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
)

// pieceSize is what a disk writes whole or not at all, in bytes.
const pieceSize = 4096

// disk is a disk with a cache that is lost with the power: what was written
// since the last flush is there in part, in any order, or not at all.
type disk struct {
	file *os.File
	mu   sync.Mutex
	// unflushed are the writes since the last flush, in order.
	unflushed []written
	flushes   int
}

type written struct {
	at       int64
	old, new []byte
}

func (d *disk) read(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.file.ReadAt(p, at)
	return err
}

func (d *disk) write(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := written{at: at, old: make([]byte, len(p)), new: append([]byte(nil), p...)}
	if _, err := d.file.ReadAt(w.old, at); err != nil {
		return err
	}
	d.unflushed = append(d.unflushed, w)
	_, err := d.file.WriteAt(p, at)
	return err
}

func (d *disk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unflushed = nil
	d.flushes++
}

// cut takes the power away: every piece that was not flushed is kept with this
// probability. It says how many were forgotten.
func (d *disk) cut(r *rand.Rand, kept float64) (forgotten int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.unflushed) - 1; i >= 0; i-- {
		_, e := d.file.WriteAt(d.unflushed[i].old, d.unflushed[i].at)
		err = errors.Join(err, e)
	}
	for _, w := range d.unflushed {
		for from := 0; from < len(w.new); from += pieceSize {
			if r.Float64() >= kept {
				forgotten++
				continue
			}
			_, e := d.file.WriteAt(w.new[from:min(from+pieceSize, len(w.new))], w.at+int64(from))
			err = errors.Join(err, e)
		}
	}
	d.unflushed = nil
	return forgotten, err
}
