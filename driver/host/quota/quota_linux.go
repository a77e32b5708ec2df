// Package quota sets and reads project quotas of XFS and ext4: limits on the
// bytes and inodes of all files that carry a project's number, by the file
// descriptor of anything on the filesystem (quotactl_fd(2), Linux 5.14), so
// that no device node is needed. It needs CAP_SYS_ADMIN.
//
// A process that owns a file and runs in the initial user namespace may change
// the file's project (ioctl_xfs_fssetxattr(2)), and so escape a limit on
// purpose; pods with user namespaces (hostUsers: false) cannot.
package quota

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotEnforced says that a filesystem does not hold project limits.
var ErrNotEnforced = errors.New("project quotas are not enforced")

// Requests and flags (linux/quota.h, linux/dqblk_xfs.h).
const (
	projectType  = 2 // PRJQUOTA
	getInfo      = 0x800005
	setInfo      = 0x800006
	getQuota     = 0x800007
	setQuota     = 0x800008
	getNextQuota = 0x800009
	xGetState    = 'X'<<8 + 8 // Q_XGETQSTATV, which ext4 answers too
	validLimits  = 1 | 4      // QIF_LIMITS
	validGrace   = 1 | 2      // IIF_BGRACE, IIF_IGRACE
	limitUnit    = 1024       // QIF_DQBLKSIZE: limits are counted in these, usage in bytes
	accounted    = 1 << 4     // FS_QUOTA_PDQ_ACCT
	enforced     = 1 << 5     // FS_QUOTA_PDQ_ENFD
)

// Project is the number that files are counted under; 0 is every file's that
// was given none, and is never limited.
type Project uint32

// Limits are what a project may hold; 0 is no limit.
type Limits struct {
	Bytes, Inodes int64
	// SoftBytes and SoftInodes may be exceeded for the filesystem's grace time.
	SoftBytes, SoftInodes int64
}

// Quota is what a project holds and may hold.
type Quota struct {
	Bytes, Inodes int64 // held
	Limits        Limits
}

// Used reports whether anybody has a file in the project or a limit on it.
func (q Quota) Used() bool { return q != Quota{} }

// dqblk is struct if_nextdqblk; struct if_dqblk is its beginning.
type dqblk struct {
	bHard, bSoft, curSpace  uint64
	iHard, iSoft, curInodes uint64
	bTime, iTime            uint64
	valid, id               uint32
}

func (d *dqblk) quota() Quota {
	return Quota{Bytes: int64(d.curSpace), Inodes: int64(d.curInodes), Limits: Limits{
		Bytes: int64(d.bHard) * limitUnit, SoftBytes: int64(d.bSoft) * limitUnit,
		Inodes: int64(d.iHard), SoftInodes: int64(d.iSoft),
	}}
}

// state is struct fs_quota_statv.
type state struct {
	version int8
	_       uint8
	flags   uint16
	_       [148]byte
}

func quotactl(f *os.File, cmd int, id Project, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(cmd<<8|projectType), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Probe answers ErrNotEnforced, with the reason, unless the filesystem counts
// projects and holds their limits.
func Probe(f *os.File) error {
	s := state{version: 1} // FS_QSTATV_VERSION1
	if err := quotactl(f, xGetState, 0, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("%w on %s: %w", ErrNotEnforced, f.Name(), err)
	}
	if s.flags&accounted == 0 {
		return fmt.Errorf("%w on %s: projects are not counted", ErrNotEnforced, f.Name())
	}
	if s.flags&enforced == 0 {
		return fmt.Errorf("%w on %s: projects are counted, but their limits are off", ErrNotEnforced, f.Name())
	}
	return nil
}

// Get reads a project; one that nobody uses is all zeros.
func Get(f *os.File, id Project) (Quota, error) {
	var d dqblk
	err := quotactl(f, getQuota, id, unsafe.Pointer(&d))
	if errors.Is(err, unix.ENOENT) {
		return Quota{}, nil
	}
	if err != nil {
		return Quota{}, fmt.Errorf("read the quota of project %d: %w", id, err)
	}
	return d.quota(), nil
}

// SetLimits sets the limits of a project, all of them at once; bytes are
// rounded up to 1024. They hold from then on, and nothing that is there goes:
// a project that holds more than its limit gets nothing new.
func SetLimits(f *os.File, id Project, l Limits) error {
	units := func(bytes int64) uint64 { return uint64(bytes+limitUnit-1) / limitUnit }
	d := dqblk{bHard: units(l.Bytes), bSoft: units(l.SoftBytes), iHard: uint64(l.Inodes), iSoft: uint64(l.SoftInodes), valid: validLimits}
	if err := quotactl(f, setQuota, id, unsafe.Pointer(&d)); err != nil {
		return fmt.Errorf("limit project %d to %+v: %w", id, l, err)
	}
	return nil
}

// dqinfo is struct if_dqinfo.
type dqinfo struct {
	bytes, inodes uint64 // seconds
	flags, valid  uint32
}

// Grace reads for how long soft limits of bytes may be exceeded.
func Grace(f *os.File) (time.Duration, error) {
	var i dqinfo
	if err := quotactl(f, getInfo, 0, unsafe.Pointer(&i)); err != nil {
		return 0, fmt.Errorf("read the grace time of the project quotas: %w", err)
	}
	return time.Duration(i.bytes) * time.Second, nil
}

// SetGrace sets for how long, in whole seconds, soft limits may be exceeded.
// It is one time for all projects of a filesystem. A project that is above its
// soft limit already keeps the time it was given when it rose above.
func SetGrace(f *os.File, d time.Duration) error {
	seconds := uint64(d / time.Second)
	i := dqinfo{bytes: seconds, inodes: seconds, valid: validGrace}
	if err := quotactl(f, setInfo, 0, unsafe.Pointer(&i)); err != nil {
		return fmt.Errorf("set the grace time of the project quotas to %s: %w", d, err)
	}
	return nil
}

// InUse reads all projects from least to most that anybody uses.
func InUse(f *os.File, least, most Project) (map[Project]Quota, error) {
	out := map[Project]Quota{}
	for id := least; ; {
		var d dqblk
		err := quotactl(f, getNextQuota, id, unsafe.Pointer(&d))
		if errors.Is(err, unix.ENOENT) || (err == nil && Project(d.id) > most) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the projects from %d: %w", id, err)
		}
		if q := d.quota(); q.Used() {
			out[Project(d.id)] = q
		}
		if Project(d.id) == most {
			return out, nil
		}
		id = Project(d.id) + 1
	}
}

// The attributes that carry a project (linux/fs.h).
const (
	fsGetXattr  = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr  = 0x401c5820 // FS_IOC_FSSETXATTR
	projInherit = 0x200      // FS_XFLAG_PROJINHERIT
)

// fsxattr is struct fsxattr.
type fsxattr struct {
	xflags, extSize, nextents, projID, cowExtSize uint32
	_                                             [8]byte
}

// ProjectOf reads the project of an open file, and of a directory whether what
// is made in it belongs to the same.
func ProjectOf(f *os.File) (id Project, inherited bool, err error) {
	x, err := attributes(f)
	return Project(x.projID), x.xflags&projInherit != 0, err
}

// SetProject puts an open file into a project; of a directory also all that
// will be made in it.
func SetProject(f *os.File, id Project) error { return setProject(f, id, true) }

// ClearProject takes an open file out of its project, and a directory with what
// will be made in it.
func ClearProject(f *os.File) error { return setProject(f, 0, false) }

func setProject(f *os.File, id Project, inherit bool) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	x, err := attributes(f)
	if err != nil {
		return err
	}
	x.projID = uint32(id)
	x.xflags &^= projInherit
	if inherit && fi.IsDir() {
		x.xflags |= projInherit
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsSetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return fmt.Errorf("put %s into project %d: %w", f.Name(), id, errno)
	}
	return nil
}

func attributes(f *os.File) (fsxattr, error) {
	var x fsxattr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return x, fmt.Errorf("read the project of %s: %w", f.Name(), errno)
	}
	return x, nil
}
