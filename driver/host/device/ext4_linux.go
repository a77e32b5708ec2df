package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Where things are in the superblock of ext4, in bytes from its start
// (Documentation/filesystems/ext4/super.rst).
const (
	ext4SuperAt        = 1024 // on the device
	ext4SuperSize      = 1024
	ext4BlocksLow      = 0x4
	ext4LogBlockSize   = 0x18
	ext4BlocksPerGroup = 0x20
	ext4MagicAt        = 0x38
	ext4IncompatAt     = 0x60
	ext4BlocksHigh     = 0x150

	ext4Magic       = 0xEF53
	ext4Incompat64  = 0x80
	ext4LargestLog  = 6    // blocks of 64 KiB
	ext4GroupNeeded = 1024 // blocks; a last group of fewer may not hold its own tables, and is left out
)

// ErrNoExt4 says that there is no ext4 on a device.
var ErrNoExt4 = errors.New("no ext4 superblock")

// Size gives the size of a block device in bytes (BLKGETSIZE64).
func Size(path string) (int64, error) {
	var size int64
	err := with(path, func(f *os.File) error {
		var err error
		size, err = f.Seek(0, 2) // what the ioctl tells, without its pointer
		return err
	})
	return size, err
}

// Ext4Fills reports whether the ext4 filesystem on a device is as large as
// the device lets it be. It may be mounted: its superblock is then read from
// the same cache that the kernel writes to.
func Ext4Fills(path string) (bool, error) {
	size, err := Size(path)
	if err != nil {
		return false, err
	}
	super := make([]byte, ext4SuperSize)
	err = with(path, func(f *os.File) error {
		_, err := unix.Pread(int(f.Fd()), super, ext4SuperAt)
		return err
	})
	if err != nil {
		return false, err
	}
	fills, err := ext4Fills(super, size)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return fills, nil
}

func ext4Fills(super []byte, size int64) (bool, error) {
	at := binary.LittleEndian
	log := at.Uint32(super[ext4LogBlockSize:])
	perGroup := uint64(at.Uint32(super[ext4BlocksPerGroup:]))
	if at.Uint16(super[ext4MagicAt:]) != ext4Magic || log > ext4LargestLog || perGroup == 0 {
		return false, ErrNoExt4
	}
	has := uint64(at.Uint32(super[ext4BlocksLow:]))
	if at.Uint32(super[ext4IncompatAt:])&ext4Incompat64 != 0 {
		has |= uint64(at.Uint32(super[ext4BlocksHigh:])) << 32
	}
	fits := uint64(size) >> (10 + log)
	return has >= fits || has%perGroup == 0 && fits-has < ext4GroupNeeded, nil
}
