package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/plinth-csi/plinth/driver/host/loop"
	"golang.org/x/sys/unix"
)

// sectorAttribute, on a Block volume that was attached, is the size of its
// sectors in bytes (little-endian, 32 bits). What a consumer writes may depend
// on it, and the best size for a file changes once it shares bytes with a
// snapshot. The filesystems that this backend makes fit any.
const sectorAttribute = "trusted.plinth.sector"

// attachImage attaches an image, a Block volume always with the sectors that
// it, or the volume it is a copy of, had at first.
func attachImage(f *os.File) (loop.Device, error) {
	value := make([]byte, 16)
	n, err := unix.Fgetxattr(int(f.Fd()), contentAttribute, value)
	if err != nil {
		return loop.Device{}, fmt.Errorf("read the attribute %s of %s: %w", contentAttribute, f.Name(), err)
	}
	if content(value[:n]) != block {
		return loop.Attach(f)
	}
	sector, err := sectorOf(f)
	if err != nil {
		return loop.Device{}, err
	}
	if sector != 0 {
		return loop.AttachSectors(f, sector)
	}
	d, err := loop.Attach(f)
	if err != nil {
		return d, err
	}
	if sector, err = loop.SectorSize(d); err == nil {
		err = setSector(f, sector)
	}
	return d, err
}

// sectorOf reads the sector size of an image; 0 if it has had none.
func sectorOf(f *os.File) (uint32, error) {
	value := make([]byte, 4)
	_, err := unix.Fgetxattr(int(f.Fd()), sectorAttribute, value)
	if errors.Is(err, unix.ENODATA) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the attribute %s of %s: %w", sectorAttribute, f.Name(), err)
	}
	return binary.LittleEndian.Uint32(value), nil
}

// setSector is durable before any consumer has the device.
func setSector(f *os.File, sector uint32) error {
	value := binary.LittleEndian.AppendUint32(nil, sector)
	err := unix.Fsetxattr(int(f.Fd()), sectorAttribute, value, 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the attribute %s of %s: %w", sectorAttribute, f.Name(), err)
	}
	return nil
}

// keepSectors gives a copy the sector size of its source.
func keepSectors(dst, src *os.File) error {
	sector, err := sectorOf(src)
	if err != nil || sector == 0 {
		return err
	}
	return setSector(dst, sector)
}
