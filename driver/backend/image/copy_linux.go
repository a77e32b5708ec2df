package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/clone"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/fsck"
	"github.com/plinth-csi/plinth/driver/host/loop"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// sourceAttribute, on a copy that is being made, names the image whose
// filesystem may be frozen for it: who ends in between leaves it frozen, and
// whoever frees the copy thaws it.
const sourceAttribute = "trusted.plinth.source"

// copying is an image that is being made of another.
type copying struct {
	src, dst *os.File
	to       string
	holds    content
}

// begin makes the file that becomes a copy. It says on it whose filesystem may
// be frozen for it.
func (m *machine) begin(from, to string) (_ *copying, err error) {
	if err := errors.Join(m.dir.Mkdir(layout.Snapshots, 0o700), m.Free(to)); err != nil {
		return nil, err
	}
	holds, err := m.Stat(from)
	if err != nil {
		return nil, err
	}
	c := &copying{to: to, holds: holds.content}
	if c.src, _, err = m.open(from, unix.O_RDONLY); err != nil {
		return nil, err
	}
	c.dst, err = m.dir.OpenFile(to, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, c.src.Close())
	}
	noCopyOnWrite(c.dst)
	for name, value := range map[string]string{contentAttribute: string(c.holds), sourceAttribute: from} {
		if err == nil {
			err = unix.Fsetxattr(int(c.dst.Fd()), name, []byte(value), 0)
		}
	}
	if err != nil {
		err = fmt.Errorf("write the attributes of %s: %w", to, err)
	} else {
		err = keepSectors(c.dst, c.src)
	}
	if err != nil {
		return nil, errors.Join(err, c.close(), m.Free(to))
	}
	return c, nil
}

// release says on the copy that nothing is frozen for it any more, unless by
// somebody else.
func (c *copying) release() error {
	err := unix.Fremovexattr(int(c.dst.Fd()), sourceAttribute)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("remove the attribute %s of %s: %w", sourceAttribute, c.to, err)
	}
	return nil
}

func (c *copying) close() error { return errors.Join(c.src.Close(), c.dst.Close()) }

// Copy implements copier.
func (m *machine) Copy(ctx context.Context, from, to string, p backend.Progress) error {
	c, err := m.begin(from, to)
	if err != nil {
		return full(err)
	}
	err = errors.Join(copyImage(ctx, c.dst, c.src, c.holds, p), c.release())
	if err == nil {
		err = c.dst.Sync()
	}
	err = errors.Join(err, c.close())
	if err != nil {
		return errors.Join(full(err), m.Free(to))
	}
	return nil
}

func copyImage(ctx context.Context, dst, src *os.File, holds content, p backend.Progress) error {
	d, attached, err := loop.Find(src)
	if err != nil {
		return err
	}
	err = clone.Probe(dst, src)
	switch {
	case errors.Is(err, clone.ErrNoReflink) && attached:
		return fmt.Errorf("%w: attached as %s, and the pool's filesystem has no reflinks; a volume there is copied only while nobody uses it (a pool on XFS or btrfs has no such bound): %w",
			volume.ErrInUse, d.Path, err)
	case errors.Is(err, clone.ErrNoReflink):
		return copyIdle(ctx, dst, src, p)
	case err != nil:
		return err
	}
	reflink := func() error { return clone.Reflink(dst, src) }
	if !attached {
		return reflink()
	}
	return whileStill(d, holds, reflink)
}

// copyIdle copies the bytes of an image that nobody has attached, and makes
// sure that nobody had meanwhile.
func copyIdle(ctx context.Context, dst, src *os.File, p backend.Progress) error {
	if err := p.Report(ctx, 0); err != nil {
		return err
	}
	var before, after unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &before); err != nil {
		return err
	}
	if err := clone.Data(ctx, dst, src, p.Report); err != nil {
		return err
	}
	if err := unix.Fstat(int(src.Fd()), &after); err != nil {
		return err
	}
	d, attached, err := loop.Find(src)
	if err == nil && (attached || before.Mtim != after.Mtim || before.Size != after.Size) {
		err = fmt.Errorf("%w: it was attached (%s) while it was copied", volume.ErrInUse, d.Path)
	}
	return err
}

// whileStill runs f while the image is what a disk would hold after a power
// cut at one instant: for a filesystem under a freeze, or while nobody can
// mount it; for a consumer's blocks after everything it synced.
func whileStill(d loop.Device, holds content, f func() error) error {
	dev, err := os.OpenFile(d.Path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(dev.Sync(), dev.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", d.Path, err)
	}
	if holds == block {
		return f()
	}
	fd, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		return errors.Join(f(), unix.Close(fd))
	}
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("open %s: %w", d.Path, err)
	}
	major, minor, err := device.Number(d.Path)
	if err != nil {
		return err
	}
	err = mount.WhileFrozen(major, minor, f)
	if errors.Is(err, mount.ErrNotMountedHere) {
		return fmt.Errorf("%w: %s: %w", volume.ErrInUse, d.Path, err)
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: somebody else has frozen it: %w", volume.ErrBusy, err)
	}
	return err
}

// release undoes what a copy that a cut left may have done: a filesystem
// frozen for it, a device it was given for its new UUID.
func (m *machine) release(f *os.File) error {
	if err := m.thawSource(f); err != nil {
		return err
	}
	err := loop.Detach(f)
	if errors.Is(err, loop.ErrInUse) {
		err = fmt.Errorf("%w: %w", volume.ErrInUse, err)
	}
	return err
}

func (m *machine) thawSource(f *os.File) error {
	value := make([]byte, 256)
	n, err := unix.Fgetxattr(int(f.Fd()), sourceAttribute, value)
	if errors.Is(err, unix.ENODATA) {
		return nil // nothing was frozen for it
	}
	if err != nil {
		return fmt.Errorf("read the attribute %s of %s: %w", sourceAttribute, f.Name(), err)
	}
	name, ok := strings.CutPrefix(string(value[:n]), layout.Volumes+"/")
	id, is := layout.Image.ID(name)
	if !ok || !is {
		return nil // snapshots are attached by nobody
	}
	src, _, err := m.open(layout.Image.Path(id), unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	d, attached, err := loop.Find(src)
	if err != nil || !attached {
		return err
	}
	major, minor, err := device.Number(d.Path)
	if err != nil {
		return err
	}
	return mount.Thaw(major, minor)
}

// Own implements copier.
func (m *machine) Own(ctx context.Context, name string, size int64, thick bool, c content) error {
	f, _, err := m.open(name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if c != block {
		if err := fsck.NewUUID(ctx, m.runner, f, string(c)); err != nil {
			return full(err)
		}
	}
	if err := extend(f, size, thick); err != nil {
		return err
	}
	if thick {
		if err := unshare(f, size); err != nil {
			return full(fmt.Errorf("give %s bytes of its own: %w", name, err))
		}
	}
	return f.Sync()
}

// unshare gives a thick copy its own bytes instead of shared ones, which every
// write would first have to find room for. A filesystem without reflinks has
// shared none.
func unshare(f *os.File, size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Type == unix.EXT4_SUPER_MAGIC {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_UNSHARE_RANGE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: thick copies on this filesystem: %w", volume.ErrUnsupported, err)
	}
	return err
}

// full says ErrNoCapacity where the pool has no room.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", volume.ErrNoCapacity, err)
	}
	return err
}
