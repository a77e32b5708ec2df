//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/quota"
	"github.com/plinth-csi/plinth/driver/host/subvolume"
)

// invariants: records = data on disk = mounts = loop devices = quota groups or
// projects = reservations.
// The process is started anew for it: what could not be freed while something
// else was there goes then.
func (l *load) invariants(ctx context.Context) error {
	if err := errors.Join(l.node.stop(), l.node.launch(), l.node.answers(ctx)); err != nil {
		return err
	}
	return errors.Join(l.records(), l.data(), l.mounts(), l.loops(), l.groups(), l.projects(), l.reservations(ctx))
}

// records are those of what is there, and nothing is under way in them.
func (l *load) records() error {
	volumes, snapshots := l.all()
	return errors.Join(
		l.recordsOf("volumes", slices.Collect(maps.Keys(volumes))),
		l.recordsOf("snapshots", slices.Collect(maps.Keys(snapshots))))
}

func (l *load) recordsOf(what string, want []string) error {
	names, err := list(filepath.Join(l.node.pool, ".plinth", what), ".json")
	if err != nil {
		return err
	}
	errs := []error{same("records of "+what, names, want)}
	for _, name := range names {
		var r struct {
			State  string `json:"state"`
			GrowTo int64  `json:"growTo"`
		}
		if err := l.readRecord(what, name, &r); err != nil || r.State != "ready" || r.GrowTo != 0 {
			errs = append(errs, fmt.Errorf("%w: record %s of %s: %+v (%v)", errHalf, name, what, r, err))
		}
	}
	return errors.Join(errs...)
}

// data is that of what is there, and nothing waits to be made or freed.
func (l *load) data() error {
	volumes, snapshots := l.all()
	var errs []error
	for _, c := range []struct {
		dir  string
		want []string
	}{
		{"volumes", slices.Collect(maps.Keys(volumes))},
		{"snapshots", slices.Collect(maps.Keys(snapshots))},
		{".plinth/tmp", nil},
		{".plinth/trash", nil},
	} {
		names, err := list(filepath.Join(l.node.pool, c.dir), ".img")
		errs = append(errs, err, same(c.dir, names, c.want))
	}
	return errors.Join(errs...)
}

// mounts are those of staged and published volumes.
func (l *load) mounts() error {
	all, err := mount.List()
	if err != nil {
		return err
	}
	var got, want []string
	for _, m := range all {
		for _, dir := range []string{l.node.dir, l.node.pool} {
			if strings.HasPrefix(m.Point, dir+"/") {
				got = append(got, m.Point)
			}
		}
	}
	for _, w := range l.workers {
		for id, v := range w.model.volumes {
			if v.staged && !v.made.Block {
				want = append(want, w.staging(id))
			}
			if v.published {
				want = append(want, w.target(id))
			}
		}
	}
	return same("mounts", got, want)
}

// loops are those of staged images.
func (l *load) loops() error {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var got, want []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(string(data), l.node.pool+"/") {
			got = append(got, strings.TrimSpace(string(data)))
		}
	}
	volumes, _ := l.all()
	for id, v := range volumes {
		image := filepath.Join(l.node.pool, "volumes", id+".img")
		if _, err := os.Stat(image); v.staged && err == nil {
			want = append(want, image)
		}
	}
	return same("loop devices", got, want)
}

// groups: every quota group of a subvolume has its subvolume, and the other
// way round.
func (l *load) groups() error {
	pool, err := os.Open(l.node.pool)
	if err != nil {
		return err
	}
	defer pool.Close()
	mode := subvolume.QuotaOff
	if is, err := subvolume.IsBtrfs(pool); err == nil && is {
		if mode, err = subvolume.Quota(pool); err != nil {
			return err
		}
	}
	if mode == subvolume.QuotaOff {
		return nil
	}
	groups, err := subvolume.Groups(pool, 0)
	if err != nil {
		return err
	}
	var got, want []string
	for _, pattern := range []string{"volumes/*", "snapshots/*"} {
		paths, err := filepath.Glob(filepath.Join(l.node.pool, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			id, err := subvolumeAt(path)
			if err != nil {
				return err
			}
			want = append(want, subvolume.GroupOf(0, id).String())
		}
	}
	var gone int64 // bytes
	for g, u := range groups {
		switch {
		case g.Number() < 256: // the filesystem's own (linux/btrfs_tree.h)
		case u.Referenced > 0 && !slices.Contains(want, g.String()):
			gone += u.Referenced
		default:
			got = append(got, g.String())
		}
	}
	kept, err := l.copied()
	if err == nil && gone > kept {
		err = fmt.Errorf("%w: quota groups without a subvolume count %d bytes, and copies can share %d with them", errHalf, gone, kept)
	}
	return errors.Join(err, same("quota groups", got, want), limitsHaveSubvolumes(pool, want))
}

// copied is how many bytes the copies hold, shared or not. They share no more
// with what is gone, which simple quotas count for whom they were written.
func (l *load) copied() (sum int64, err error) {
	volumes, snapshots := l.all()
	var copies []string
	for id, v := range volumes {
		if v.made.From != "" {
			copies = append(copies, l.dataOf("volumes", id))
		}
	}
	for id := range snapshots {
		copies = append(copies, l.dataOf("snapshots", id))
	}
	for _, path := range copies {
		bytes, err := diskUsage(path)
		if err != nil {
			return 0, err
		}
		sum += bytes + metadata
	}
	return sum, nil
}

// limitLevel is where the backend's limits are where quotas are simple.
const limitLevel = 0x504c

func limitsHaveSubvolumes(pool *os.File, subvolumes []string) error {
	limits, err := subvolume.Groups(pool, limitLevel)
	if err != nil {
		return err
	}
	for g, u := range limits {
		if u.Referenced == 0 && !slices.Contains(subvolumes, subvolume.GroupOf(0, g.Number()).String()) {
			return fmt.Errorf("%w: the quota group %s has no subvolume", errHalf, g)
		}
	}
	return nil
}

func subvolumeAt(path string) (subvolume.ID, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	id, err := subvolume.Of(f)
	return id, errors.Join(err, f.Close())
}

// projects: every project that is limited or counted is that of a directory.
func (l *load) projects() error {
	pool, err := os.Open(l.node.pool)
	if err != nil {
		return err
	}
	defer pool.Close()
	if quota.Probe(pool) != nil {
		return nil // this pool has none
	}
	used, err := quota.InUse(pool, 1, 1<<32-1)
	if err != nil {
		return err
	}
	var got, want []string
	for id, q := range used {
		if q.Used() {
			got = append(got, fmt.Sprint(id))
		}
	}
	for _, pattern := range []string{"volumes/*", "snapshots/*"} {
		paths, err := filepath.Glob(filepath.Join(l.node.pool, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			id, _, err := quota.ProjectOf(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			if id != 0 {
				want = append(want, fmt.Sprint(id))
			}
		}
	}
	return same("quota projects", got, want)
}

// list names what is in a directory, without a suffix; one that is not there
// is empty.
func list(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), suffix))
	}
	return out, err
}
