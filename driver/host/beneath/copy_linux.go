package beneath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/plinth-csi/plinth/driver/host/clone"
	"golang.org/x/sys/unix"
)

// CopyTree copies what is in the directory from into the directory to, which
// is there and empty, both below d, and gives to the owner, mode, times and
// extended attributes of from. Files share their bytes with their source where
// the filesystem has reflinks, else they are copied without their holes. Hard
// links within the tree stay hard links; symlinks, fifos, sockets and device
// nodes are made anew and never followed or opened. Owners, modes, times and
// extended attributes, so ACLs too, are kept; inode flags (immutable, …) and
// attributes named in skip are not. moved is told the bytes of the files copied
// so far, and its error ends the copy.
//
// Each file is copied at one instant where there are reflinks, the tree is
// not: what moves or goes away meanwhile may be missing. ErrMount, before
// anything is copied, while anything is mounted at or below from. Nothing is
// durable before a sync of the filesystem.
func (d *Dir) CopyTree(ctx context.Context, from, to string, moved func(context.Context, int64) error, skip ...string) error {
	c := &treeCopy{d: d, from: from, to: to, linked: map[inode]string{}, skip: map[string]bool{}, told: moved}
	for _, name := range skip {
		c.skip[name] = true
	}
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("copy the tree %s to %s: %w", filepath.Join(d.Name(), from), filepath.Join(d.Name(), to), err)
	}
	return nil
}

// inode tells files apart; on btrfs each subvolume has a device number.
type inode struct{ dev, number uint64 }

// treeCopy is one copy. Directories are known by their path below the top.
type treeCopy struct {
	d        *Dir
	from, to string
	linked   map[inode]string // where a file with several links was copied to
	skip     map[string]bool  // attributes
	told     func(context.Context, int64) error
	moved    int64       // bytes in the files copied so far
	done     []copiedDir // parents before children
}

// copiedDir waits for its own look until everything in it is made, which
// would change its times, or inherit its ACL.
type copiedDir struct {
	name string
	look look
}

// look is what an inode has beside its content.
type look struct {
	st         unix.Stat_t
	attributes map[string][]byte
}

func (c *treeCopy) run(ctx context.Context) error {
	top, err := c.d.OpenDir(c.from)
	if err != nil {
		return err
	}
	if err := errors.Join(refuseMounts(top.f), top.Close()); err != nil {
		return err
	}
	for pending := []string{"."}; len(pending) > 0; {
		name := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		below, err := c.dir(ctx, name)
		if name != "." && gone(err) {
			continue // what went away meanwhile stays empty
		}
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		pending = append(pending, below...)
	}
	for i := len(c.done) - 1; i >= 0; i-- {
		if err := c.finish(c.done[i]); err != nil {
			return fmt.Errorf("%q: %w", c.done[i].name, err)
		}
	}
	return nil
}

// dir copies what is in one directory and gives the directories in it, which
// it has made.
func (c *treeCopy) dir(ctx context.Context, name string) (below []string, err error) {
	src, err := c.d.openDeep(join(c.from, name))
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dst, err := c.d.openDeep(join(c.to, name))
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	l, err := c.look(src)
	if err != nil {
		return nil, err
	}
	c.done = append(c.done, copiedDir{name, l})
	err = eachName(ctx, int(src.Fd()), func(base string) error {
		isDir, err := c.entry(ctx, src, dst, name, base)
		if isDir {
			below = append(below, join(name, base))
		}
		if err != nil {
			return fmt.Errorf("%q: %w", base, err)
		}
		return nil
	})
	return below, err
}

// entry copies one name; a directory is only made.
func (c *treeCopy) entry(ctx context.Context, src, dst *os.File, dir, base string) (isDir bool, err error) {
	from, to := int(src.Fd()), int(dst.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(from, base, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
		return false, ignoreGone(err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		err := unix.Mkdirat(to, base, 0o700)
		return err == nil, ignoreThere(err)
	}
	if first, ok := c.linked[inode{st.Dev, st.Ino}]; ok && st.Nlink > 1 {
		return false, ignoreThere(c.link(first, to, base))
	}
	switch kind {
	case unix.S_IFREG:
		err = c.file(ctx, from, to, base)
	case unix.S_IFLNK:
		err = symlink(from, to, base, &st)
	default: // a fifo, a socket or a device's node
		err = unix.Mknodat(to, base, st.Mode, int(st.Rdev))
		if err == nil {
			err = lookOf(to, base, &st)
		}
	}
	if err == nil && st.Nlink > 1 {
		c.linked[inode{st.Dev, st.Ino}] = join(dir, base)
	}
	return false, ignoreThere(ignoreGone(err))
}

// ignoreThere: reading a directory that changes meanwhile may tell a name twice.
func ignoreThere(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// link makes another link to what was copied to first.
func (c *treeCopy) link(first string, to int, base string) error {
	parent, err := c.d.openDeep(join(c.to, path.Dir(first)))
	if err != nil {
		return err
	}
	return errors.Join(unix.Linkat(int(parent.Fd()), path.Base(first), to, base, 0), parent.Close())
}

// file copies a regular file.
func (c *treeCopy) file(ctx context.Context, from, to int, base string) error {
	fd, err := openat2(from, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(fd), base)
	defer src.Close()
	l, err := c.look(src)
	if err != nil {
		return err
	}
	if l.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENOENT // something else has its name now
	}
	fd, err = openat2(to, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), base)
	defer dst.Close()
	err = clone.Reflink(dst, src)
	if errors.Is(err, clone.ErrNoReflink) {
		err = clone.Data(ctx, dst, src, func(ctx context.Context, n int64) error { return c.told(ctx, c.moved+n) })
	}
	if err != nil {
		return err
	}
	c.moved += l.st.Blocks * 512
	if err := c.told(ctx, c.moved); err != nil {
		return err
	}
	return l.apply(dst)
}

func symlink(from, to int, base string, st *unix.Stat_t) error {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, base, target)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(target[:n]), to, base); err != nil {
		return err
	}
	return lookOf(to, base, st)
}

// lookOf gives a new inode, by its name, owner, mode and times. A symlink has
// no mode. Nobody else can reach the copy, so the name is still the inode.
func lookOf(dir int, base string, st *unix.Stat_t) error {
	err := unix.Fchownat(dir, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.Fchmodat(dir, base, st.Mode&^unix.S_IFMT, 0)
	}
	if err == nil {
		err = unix.UtimesNanoAt(dir, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

func (c *treeCopy) finish(dir copiedDir) error {
	f, err := c.d.openDeep(join(c.to, dir.name))
	if err != nil {
		return err
	}
	return errors.Join(dir.look.apply(f), f.Close())
}

func join(dir, name string) string {
	switch {
	case name == ".":
		return dir
	case dir == ".":
		return name
	}
	return dir + "/" + name
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// look reads an open file or directory.
func (c *treeCopy) look(f *os.File) (look, error) {
	var l look
	if err := unix.Fstat(int(f.Fd()), &l.st); err != nil {
		return l, err
	}
	names, err := attributeNames(f)
	for _, name := range names {
		if c.skip[name] {
			continue
		}
		value, e := attribute(f, name)
		if errors.Is(e, unix.ENODATA) {
			continue // taken off meanwhile
		}
		if l.attributes == nil {
			l.attributes = map[string][]byte{}
		}
		l.attributes[name] = value
		err = errors.Join(err, e)
	}
	return l, err
}

// attributes may be this many bytes, names together or a value
// (xattr(7), XATTR_LIST_MAX and XATTR_SIZE_MAX).
const attributesMax = 64 << 10

func attributeNames(f *os.File) ([]string, error) {
	n, err := unix.Flistxattr(int(f.Fd()), nil)
	if err != nil || n == 0 {
		return nil, err
	}
	list := make([]byte, attributesMax)
	if n, err = unix.Flistxattr(int(f.Fd()), list); err != nil {
		return nil, fmt.Errorf("list the attributes: %w", err)
	}
	return strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }), nil
}

func attribute(f *os.File, name string) ([]byte, error) {
	value := make([]byte, attributesMax)
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	if err != nil {
		return nil, fmt.Errorf("read the attribute %s: %w", name, err)
	}
	return value[:n:n], nil
}

// apply gives an open copy what its source has beside its content, the owner
// first, which takes away set-user-ID bits and capabilities.
func (l look) apply(f *os.File) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(l.st.Uid), int(l.st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, l.st.Mode&^unix.S_IFMT); err != nil {
		return err
	}
	for name, value := range l.attributes {
		err := unix.Fsetxattr(fd, name, value, 0)
		// A label of a security module that is not the one running.
		if errors.Is(err, unix.EOPNOTSUPP) && strings.HasPrefix(name, "security.") {
			continue
		}
		if err != nil {
			return fmt.Errorf("write the attribute %s: %w", name, err)
		}
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{l.st.Atim, l.st.Mtim}, unix.AT_EMPTY_PATH)
}
