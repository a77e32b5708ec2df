package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/backend/layout"
	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/host/mkfs"
	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// Offered implements host.
func (m *machine) Offered(ctx context.Context, claimed map[string]bool) ([]device.Disk, []string, error) {
	all, err := m.Disks()
	if err != nil {
		return nil, nil, err
	}
	var out []device.Disk
	var problems, seen []string
	for _, pattern := range m.patterns {
		names, err := device.Match(pattern)
		if err != nil {
			return nil, nil, err
		}
		if len(names) == 0 && !strings.ContainsAny(pattern, `*?[\`) {
			problems = append(problems, fmt.Sprintf("there is no block device %s", pattern))
		}
		for _, name := range names {
			if slices.Contains(seen, name) {
				continue
			}
			seen = append(seen, name)
			d, err := m.offer(ctx, name, all, claimed)
			if err != nil {
				problems = append(problems, fmt.Sprintf("/dev/%s is not used: %v", name, err))
			} else if d.Identity != "" {
				out = append(out, d)
			}
		}
	}
	return out, problems, nil
}

// offer says what is wrong with a disk that a pattern finds. A disk that has a
// claim is none to offer, and nothing is wrong with it.
func (m *machine) offer(ctx context.Context, name string, all []device.Disk, claimed map[string]bool) (device.Disk, error) {
	identity, err := device.Identify(name)
	if err != nil {
		return device.Disk{}, fmt.Errorf("%w; make a GPT partition on it and list that", err)
	}
	if claimed[identity] {
		return device.Disk{}, nil
	}
	same := slices.DeleteFunc(slices.Clone(all), func(d device.Disk) bool { return d.Identity != identity })
	switch {
	case len(same) == 0:
		return device.Disk{}, errors.New("it has no size")
	case len(same) > 1:
		return device.Disk{}, fmt.Errorf("%s calls itself %s too, and they cannot be told apart; list what joins them (multipath), or take one out", other(same, name), identity)
	case same[0].Size < minDisk:
		return device.Disk{}, fmt.Errorf("it has %d bytes; the least is %d", same[0].Size, minDisk)
	}
	holder, err := device.Holder(name)
	if err == nil && holder != "" {
		err = errors.New(holder)
	}
	if err == nil {
		err = m.vacant(ctx, same[0])
	}
	if err != nil {
		return device.Disk{}, err
	}
	return same[0], nil
}

func other(same []device.Disk, name string) string {
	if same[0].Path == "/dev/"+name {
		return same[1].Path
	}
	return same[0].Path
}

// vacant says what is on a disk that keeps it from being taken.
func (m *machine) vacant(ctx context.Context, d device.Disk) error {
	ro, err := device.ReadOnly(d.Path)
	if err == nil && ro {
		err = errors.New("it is read-only")
	}
	if err != nil {
		return err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.blank(ctx, f, d)
}

// blank says what is on an open disk.
func (m *machine) blank(ctx context.Context, f *os.File, d device.Disk) error {
	is, err := device.Blank(f, d.Size)
	if err != nil || is {
		return err
	}
	const wayOut = "if nothing on it is needed, wipefs -a %[2]s and then blkdiscard -z %[2]s free it"
	switch found, err := mkfs.Probe(ctx, m.runner, d.Path); {
	case err != nil:
		return err
	case found.What != "":
		return fmt.Errorf("it carries %[1]s; "+wayOut, found.What, d.Path)
	case markOf(f, d.Size) != "":
		return fmt.Errorf("it %[1]s; "+wayOut, "belongs to a volume of another pool or another plinth", d.Path)
	}
	return fmt.Errorf("it %[1]s; "+wayOut, "is not blank: the first or last MiB has something in it that nobody knows", d.Path)
}

// exclusive opens a disk for this process alone, and makes sure that it still
// is the one that was found.
func exclusive(d device.Disk) (*os.File, error) {
	f, err := device.Exclusive(d.Path)
	if errors.Is(err, device.ErrInUse) {
		return nil, fmt.Errorf("%w: %w", volume.ErrInUse, err)
	}
	if err != nil {
		return nil, err
	}
	if err := sameDisk(d); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sameDisk is called while the disk is open: its name stays its own then.
func sameDisk(d device.Disk) error {
	identity, err := device.Identify(filepath.Base(d.Path))
	if err == nil && identity != d.Identity {
		err = fmt.Errorf("%w: %s is now %s and was %s", volume.ErrPoolUnavailable, d.Path, identity, d.Identity)
	}
	return err
}

// Take implements host.
func (m *machine) Take(ctx context.Context, d device.Disk, c claim) error {
	f, err := exclusive(d)
	if errors.Is(err, volume.ErrInUse) {
		return fmt.Errorf("%w: %w", errTaken, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.blank(ctx, f, d); err != nil {
		return fmt.Errorf("%w: %w", errTaken, err)
	}
	switch on, err := mkfs.Probe(ctx, m.runner, d.Path); {
	case err != nil:
		return err
	case on.What != "":
		return fmt.Errorf("%w: it carries %s", errTaken, on.What)
	}
	if err := device.Discard(ctx, f, d.Size); err != nil {
		return err
	}
	if err := device.ZeroEnds(f, d.Size); err != nil {
		return err
	}
	return setMark(f, d.Size, c.Mark)
}

// Format implements host. The disk was discarded when it was taken; what is
// found on it afterwards must be what was made.
func (m *machine) Format(ctx context.Context, d device.Disk, c claim, s volume.Spec) error {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0) // not exclusively: mkfs is to have it so
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sameDisk(d); err != nil {
		return err
	}
	if mark := markOf(f, d.Size); mark != c.Mark {
		return fmt.Errorf("%w: the mark on %s is no longer ours", volume.ErrPoolUnavailable, d.Path)
	}
	if err := mkfs.Format(ctx, m.runner, f, mkfs.Wish{FSType: string(c.Holds), Options: s.MkfsOptions, UUID: c.UUID}); err != nil {
		return err
	}
	if s.Root != (volume.Root{}) {
		if err := mount.InRoot(d.Path, string(c.Holds), func(root *os.File) error { return layout.SetRoot(root, s.Root) }); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	on, err := mkfs.Probe(ctx, m.runner, d.Path)
	if err == nil && (on.What != string(c.Holds) || on.UUID != c.UUID) {
		err = fmt.Errorf("%s made on %s, and found is %q with UUID %q", c.Holds, d.Path, on.What, on.UUID)
	}
	return err
}

// Ours implements host.
func (m *machine) Ours(ctx context.Context, d device.Disk, c claim) (bool, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	on, err := mkfs.Probe(ctx, m.runner, d.Path)
	if err != nil || on.What != "" && (c.UUID == "" || on.UUID != c.UUID) {
		return false, err
	}
	return c.Taken || markOf(f, d.Size) == c.Mark, nil
}

// Wipe implements host.
func (m *machine) Wipe(ctx context.Context, d device.Disk) error {
	f, err := exclusive(d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := device.Discard(ctx, f, d.Size); err != nil {
		return err
	}
	// With force, because the disk is this process's alone.
	if _, err := m.runner.Run(ctx, "wipefs", "-q", "-a", "-f", d.Path); err != nil {
		return err
	}
	if err := device.ZeroEnds(f, d.Size); err != nil {
		return err
	}
	// Partitions that a consumer made are no more; on a partition, and where
	// there are none, the request is refused.
	_, _ = unix.IoctlRetInt(int(f.Fd()), unix.BLKRRPART)
	on, err := mkfs.Probe(ctx, m.runner, d.Path)
	if err == nil && on.What != "" {
		err = fmt.Errorf("wiped %s, and it still carries %s", d.Path, on.What)
	}
	return err
}

// Zero implements host.
func (m *machine) Zero(ctx context.Context, d device.Disk, from int64, done func(int64) error) error {
	f, err := exclusive(d)
	if err != nil {
		return err
	}
	defer f.Close()
	if from == 0 {
		if _, err := device.DiscardSecurely(ctx, f, d.Size); err != nil {
			return err
		}
	}
	part := max(d.Size/100, 1<<30) &^ (1<<20 - 1)
	for from < d.Size {
		to, err := device.Zero(ctx, f, from, min(from+part, d.Size))
		if err != nil {
			return err
		}
		if err := done(to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// Idle implements host.
func (m *machine) Idle(d device.Disk) error {
	f, err := exclusive(d)
	if err != nil {
		return err
	}
	return f.Close()
}

// Release implements host. A volume that was published read-only left its disk
// so.
func (m *machine) Release(d device.Disk) error {
	ro, err := device.ReadOnly(d.Path)
	if err != nil || !ro {
		return err
	}
	return device.SetReadOnly(d.Path, false)
}
