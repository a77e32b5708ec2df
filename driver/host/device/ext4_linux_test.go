package device

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestExt4Fills(t *testing.T) {
	super := func(blocks, incompat uint32) []byte {
		b := make([]byte, ext4SuperSize)
		binary.LittleEndian.PutUint16(b[ext4MagicAt:], ext4Magic)
		binary.LittleEndian.PutUint32(b[ext4LogBlockSize:], 2) // 4 KiB
		binary.LittleEndian.PutUint32(b[ext4BlocksPerGroup:], 32768)
		binary.LittleEndian.PutUint32(b[ext4BlocksLow:], blocks)
		binary.LittleEndian.PutUint32(b[ext4IncompatAt:], incompat)
		binary.LittleEndian.PutUint32(b[ext4BlocksHigh:], 1)
		return b
	}
	for _, c := range []struct {
		name  string
		super []byte
		size  int64
		fills bool
	}{
		{"full", super(1000, 0), 1000 * 4096, true},
		{"part of a block over", super(1000, 0), 1000*4096 + 4095, true},
		{"a block short", super(1000, 0), 1001 * 4096, false},
		{"a group too small to be", super(32768, 0), (32768 + 1023) * 4096, true},
		{"a group of its own", super(32768, 0), (32768 + 1024) * 4096, false},
		{"64 bits", super(0, ext4Incompat64), 4096 << 32, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fills, err := ext4Fills(c.super, c.size)
			if err != nil || fills != c.fills {
				t.Errorf("got %t, %v, want %t", fills, err, c.fills)
			}
		})
	}
	if _, err := ext4Fills(make([]byte, ext4SuperSize), 4096); !errors.Is(err, ErrNoExt4) {
		t.Errorf("an empty device: %v", err)
	}
}
