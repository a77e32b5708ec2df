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
	pieces    int // of them
	fuse      fuse
	dead      bool // it has no power: it takes nothing and answers nothing
}

// fuse cuts the power as soon as so many pieces are not flushed.
type fuse struct {
	pieces int // none: never
	blow   func()
}

// errDead is a disk's only answer once it has no power.
var errDead = errors.New("the disk has no power")

type written struct {
	at       int64
	old, new []byte
}

func (d *disk) read(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	_, err := d.file.ReadAt(p, at)
	return err
}

func (d *disk) write(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	w := written{at: at, old: make([]byte, len(p)), new: append([]byte(nil), p...)}
	if _, err := d.file.ReadAt(w.old, at); err != nil {
		return err
	}
	d.unflushed = append(d.unflushed, w)
	if _, err := d.file.WriteAt(p, at); err != nil {
		return err
	}
	d.pieces += (len(p) + pieceSize - 1) / pieceSize
	if d.fuse.pieces > 0 && d.pieces >= d.fuse.pieces {
		d.dead = true
		d.fuse.blow()
		return errDead
	}
	return nil
}

func (d *disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	d.unflushed, d.pieces = nil, 0
	return nil
}

// arm gives the disk a fuse.
func (d *disk) arm(f fuse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse = f
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
	d.unflushed, d.pieces, d.fuse, d.dead = nil, 0, fuse{}, false
	return forgotten, err
}
