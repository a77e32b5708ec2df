package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// This file is the limit as those see it who write into a volume.

// limitedFiles are the volumes with files and a limit.
func limitedFiles(h Harness) bool { return h.Enforced && h.Spec.Mode == volume.Filesystem }

// testSparse makes a file that is longer than its volume, which costs nothing,
// and writes into it here and there until the volume is full.
func testSparse(t *testing.T, e *env) {
	s := e.spec("sparse")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	f, err := os.Create(filepath.Join(c.dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 * s.Size); err != nil {
		t.Fatalf("a sparse file: %v", err)
	}
	var written int64
	asContainer(func() {
		block := payload("sparse")[:64<<10]
		for at := int64(0); at < 4*s.Size && err == nil; at += 2 * int64(len(block)) {
			var n int
			n, err = f.WriteAt(block, at)
			written += int64(n)
		}
		err = errors.Join(err, f.Sync())
	})
	e.requireFull(t, s, written, err)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

// smallFiles is how many files fill a volume.
const smallFiles = 2048

// testManyFiles fills a volume with small files, and finds room again once
// half of them are gone.
func testManyFiles(t *testing.T, e *env) {
	s := e.spec("many")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	block := payload("many")[:s.Size/smallFiles]
	name := func(i int) string { return filepath.Join(c.dir, fmt.Sprintf("%d", i)) }
	made := 0
	var err error
	asContainer(func() {
		for ; made < 2*smallFiles && err == nil; made++ {
			err = os.WriteFile(name(made), block, 0o600)
		}
	})
	e.requireFull(t, s, int64(made-1)*int64(len(block)), err)
	e.settle(t)
	asContainer(func() {
		for i := 1; i < made; i += 2 {
			if err := os.Remove(name(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("remove from a full volume: %v", err)
				return
			}
		}
	})
	e.settle(t)
	if n, err := c.fill(s.Size / 8); err != nil {
		t.Errorf("half of the files are gone, and after %d bytes: %v", n, err)
	}
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

// requireFull checks that a volume became full at its limit.
func (e *env) requireFull(t *testing.T, s volume.Spec, written int64, err error) {
	t.Helper()
	if !isFull(err) {
		t.Errorf("writing past the limit gives %v after %d bytes of %d", err, written, s.Size)
	}
	if written > s.Size || written < s.Size/2 {
		t.Errorf("%d bytes went into a volume of %d", written, s.Size)
	}
}

// testLinks: a file counts once however many names it has, and none leads from
// one volume into another.
func testLinks(t *testing.T, e *env) {
	a, b := e.spec("a"), e.spec("b")
	e.ensure(t, a)
	e.ensure(t, b)
	ca, cb := e.use(t, a.ID), e.use(t, b.ID)
	ca.put(t, "moved")
	mountedAt := ""
	if ca.device != "" {
		mountedAt = ca.dir
	}
	usage := func() int64 {
		e.settle(t)
		u, err := e.b.Usage(t.Context(), a.ID, mountedAt)
		if err != nil {
			t.Fatal(err)
		}
		return u.UsedBytes
	}
	before := usage()
	file := filepath.Join(ca.dir, "file")
	if err := os.Rename(filepath.Join(ca.dir, "moved"), file); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := os.Link(file, filepath.Join(ca.dir, fmt.Sprintf("link%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if grown := usage() - before; grown > payloadSize {
		t.Errorf("20 names of a file of %d bytes cost %d", payloadSize, grown)
	}
	other := filepath.Join(cb.dir, "file")
	if err := os.Link(file, other); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a link into another volume: %v", err)
	}
	if err := os.Rename(file, other); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a file moved into another volume: %v", err)
	}
	if err := os.Rename(file, filepath.Join(ca.dir, "moved")); err != nil {
		t.Errorf("a file moved within its volume: %v", err)
	}
	ca.require(t, "moved")
	e.done(t, a.ID, ca)
	e.done(t, b.ID, cb)
}

// testGrowUnderWriter grows a volume while somebody writes more into it than
// it held, and finds every byte.
func testGrowUnderWriter(t *testing.T, e *env) {
	s := e.spec("written")
	e.ensure(t, s)
	c := e.use(t, s.ID)
	name, block := filepath.Join(c.dir, "stream"), payload("stream")
	want := s.Size * 5 / 4 / payloadSize
	half, ended := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go asContainer(func() {
		defer close(ended)
		ended <- stream(ctx, name, block, want, s.Size/2/payloadSize, half)
	})
	end := func() {
		stop()
		for range ended { // it keeps the volume mounted
		}
	}
	defer end()
	select {
	case <-half:
	case err := <-ended:
		t.Fatalf("the writer ended early: %v", err)
	}
	s.Size *= 2
	e.grow(t, s)
	if c.device != "" {
		if err := mount.Grow(c.dir); err != nil {
			if errors.Is(err, unix.EPERM) {
				end()
				e.done(t, s.ID, c)
				e.remove(t, s.ID)
				t.Log("ext4 is not grown while mounted: this process lacks CAP_SYS_RESOURCE")
				return
			}
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("the writer: %v", err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, payloadSize)
	for i := range want {
		if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("block %d of %d is not what was written (%v)", i, want, err)
		}
	}
	f.Close()
	e.done(t, s.ID, c)
	e.remove(t, s.ID)
}

// stream writes n blocks into a new file, says when half of the volume is
// written, and tries again where there is no room, as somebody does who waits
// for it.
func stream(ctx context.Context, name string, block []byte, n, halfway int64, half chan<- struct{}) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(2 * time.Minute)
	for i := int64(0); i < n; {
		if i == halfway {
			close(half)
			halfway = -1
		}
		_, err := f.WriteAt(block, i*int64(len(block)))
		if err == nil {
			err = f.Sync()
		}
		switch {
		case err == nil:
			i++
		case !isFull(err) || ctx.Err() != nil || time.Now().After(deadline):
			return errors.Join(fmt.Errorf("block %d: %w", i, err), f.Close())
		}
	}
	return f.Close()
}
