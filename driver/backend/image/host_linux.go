package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/beneath"
	"github.com/plinth-csi/plinth/driver/host/clone"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mkfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// contentAttribute is the extended attribute that says what an image holds.
const contentAttribute = "trusted.plinth.volume"

// Open opens the backend over a pool's directory, makes the places in it, and
// frees what a cut left.
func Open(ctx context.Context, o Options) (*Image, error) {
	dir, err := beneath.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open image pool: %w", err)
	}
	if o.Runner == nil {
		o.Runner = run.Exec{}
	}
	b, err := openOn(ctx, &machine{dir: dir, runner: o.Runner}, o.step)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image pool %s: %w", o.Dir, err), dir.Close())
	}
	return b, nil
}

func openOn(ctx context.Context, m *machine, step func(string) error) (*Image, error) {
	if err := layout.Prepare(m.dir.Mkdir); err != nil {
		return nil, err
	}
	if step != nil {
		return open(ctx, &stepped{host: m, step: step})
	}
	return open(ctx, m)
}

// machine is the host for real.
type machine struct {
	dir    *beneath.Dir
	runner run.Runner
}

// Reflinks implements host.
func (m *machine) Reflinks() (bool, error) { return clone.Able(m.dir.File()) }

// Close implements host.
func (m *machine) Close() error { return m.dir.Close() }

// open opens an image; only a regular file is one.
func (m *machine) open(name string, flags int) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := m.dir.OpenFile(name, flags, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		return nil, st, fmt.Errorf("%w: %s is no file", volume.ErrInvalid, name)
	}
	if err != nil {
		return nil, st, err
	}
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%w: %s is no file", volume.ErrInvalid, name)
	}
	if err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// Stat implements host.
func (m *machine) Stat(name string) (file, error) {
	f, st, err := m.open(name, unix.O_RDONLY)
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	value := make([]byte, 16)
	n, err := unix.Fgetxattr(int(f.Fd()), contentAttribute, value)
	if errors.Is(err, unix.ENODATA) {
		return file{}, fmt.Errorf("%w: %s lacks the attribute %s, so it is no image of Plinth's", volume.ErrInvalid, name, contentAttribute)
	}
	if err != nil {
		return file{}, fmt.Errorf("read the attribute %s of %s: %w", contentAttribute, name, err)
	}
	return file{size: st.Size, allocated: st.Blocks * 512, content: content(value[:n])}, nil
}

// Make implements host.
func (m *machine) Make(ctx context.Context, name string, w wish) error {
	if err := m.Free(name); err != nil {
		return err
	}
	f, err := m.dir.OpenFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	noCopyOnWrite(f)
	if err := extend(f, w.size, w.thick); err != nil {
		return err
	}
	if err := unix.Fsetxattr(int(f.Fd()), contentAttribute, []byte(w.content), 0); err != nil {
		return fmt.Errorf("write the attribute %s of %s: %w", contentAttribute, name, err)
	}
	if w.content != block {
		if err := mkfs.Format(ctx, m.runner, f, mkfs.Wish{FSType: string(w.content), Options: w.options, Zeros: true}); err != nil {
			return err
		}
		if err := setRoot(f, w); err != nil {
			return err
		}
	}
	return f.Sync()
}

// setRoot has the kernel change the root directory of a new filesystem. A cut
// leaves the file attached at most, and who frees it detaches it.
func setRoot(f *os.File, w wish) error {
	if w.root == (volume.Root{}) {
		return nil
	}
	d, err := attachImage(f)
	if err != nil {
		return err
	}
	err = mount.InRoot(d.Path, string(w.content), func(root *os.File) error { return layout.SetRoot(root, w.root) })
	return errors.Join(err, loop.Detach(f))
}

// noCopyOnWrite is for pools on btrfs, where an image that is copied on every
// write becomes slow; other filesystems do not know the flag.
func noCopyOnWrite(f *os.File) {
	const noCOW = 0x00800000 // FS_NOCOW_FL, ioctl_iflags(2)
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|noCOW)
	}
}

func extend(f *os.File, size int64, thick bool) error {
	err := f.Truncate(size)
	if err == nil && thick {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", volume.ErrNoCapacity, err)
	}
	if errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", volume.ErrOutOfRange, err)
	}
	return err
}

// Rename implements host.
func (m *machine) Rename(from, to string) error { return m.dir.Rename(from, to) }

// Extend implements host.
func (m *machine) Extend(name string, size int64, thick bool) error {
	f, st, err := m.open(name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Size < size {
		if err := extend(f, size, thick); err != nil {
			// Not halfway: a file that grew without its bytes is no thick one.
			return errors.Join(err, f.Truncate(st.Size))
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	d, attached, err := loop.Find(f)
	if err != nil || !attached {
		return err
	}
	return loop.Resize(d)
}

// Free cuts the file to nothing first: nothing is freed by unlinking what is
// open, as it is here.
func (m *machine) Free(name string) error {
	f, _, err := m.open(name, unix.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.release(f); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := m.dir.Remove(name); err != nil {
		return err
	}
	return device.AwaitFreed(m.dir.File())
}

// Names implements host.
func (m *machine) Names(dir string) ([]string, error) {
	entries, err := m.dir.Entries(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Device implements host.
func (m *machine) Device(name string, attach bool) (string, error) {
	f, st, err := m.open(name, unix.O_RDWR)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if !attach {
		d, _, err := loop.Find(f)
		return d.Path, err
	}
	d, err := attachImage(f)
	if err != nil {
		return "", err
	}
	// A device that was there may be from before a growth that was cut.
	return d.Path, errors.Join(loop.Resize(d), checkSize(d, st.Size))
}

// Devices implements host: the loop devices are looked at once for all images.
func (m *machine) Devices(names []string) (map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	attached, err := loop.List()
	if err != nil {
		return nil, err
	}
	type inode struct{ dev, ino uint64 }
	byFile := map[inode]string{}
	for _, d := range attached {
		byFile[inode{d.FileDev, d.FileInode}] = d.Path
	}
	out := map[string]string{}
	for _, name := range names {
		f, st, err := m.open(name, unix.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, volume.ErrInvalid) {
			continue // removed meanwhile, or no image
		}
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if device, ok := byFile[inode{st.Dev, st.Ino}]; ok {
			out[name] = device
		}
	}
	return out, nil
}

// checkSize makes sure that the device shows the whole file.
func checkSize(d loop.Device, size int64) error {
	dev, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer dev.Close()
	got, err := dev.Seek(0, 2)
	if err == nil && got != size {
		err = fmt.Errorf("%s has %d bytes, its file %d", d.Path, got, size)
	}
	return err
}

// Detach implements host.
func (m *machine) Detach(name string) error {
	f, _, err := m.open(name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	err = loop.Detach(f)
	if errors.Is(err, loop.ErrInUse) {
		err = fmt.Errorf("%w: %w", volume.ErrInUse, err)
	}
	return err
}

// Trims implements host.
func (m *machine) Trims() (bool, error) { return device.Trims(m.dir.File()) }

// Trim implements host.
func (m *machine) Trim() error { return device.Trim(m.dir.File()) }

// Space implements host.
func (m *machine) Space(path string) (space, error) {
	var st unix.Statfs_t
	var err error
	if path == "" {
		err = unix.Fstatfs(int(m.dir.File().Fd()), &st)
	} else {
		err = unix.Statfs(path, &st)
	}
	if err != nil {
		return space{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	s := space{
		total: int64(st.Blocks) * st.Frsize, free: int64(st.Bfree) * st.Frsize, available: int64(st.Bavail) * st.Frsize,
		inodes: int64(st.Files), freeInodes: int64(st.Ffree),
	}
	if st.Type == unix.EXT4_SUPER_MAGIC {
		s.fsType = "ext4"
	}
	return s, nil
}
