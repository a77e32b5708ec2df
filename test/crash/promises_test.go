//go:build root

package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/driver/host/subvolume"
)

// slack is how many bytes a filesystem may keep for itself more than at first.
const slack = 24 << 20

// span is a number of bytes of which only the bounds are known.
type span struct{ least, most int64 }

// reservations: what is promised follows the rule of docs/design.md ("What is
// reserved"), and what can be provisioned is what could be at first, less that.
func (l *load) reservations(ctx context.Context) error {
	if !l.enforced {
		return nil // the free space, whatever was promised
	}
	simple, err := l.simpleQuotas()
	if err != nil {
		return err
	}
	now, err := l.node.csi.capacity(ctx)
	if err != nil {
		return err
	}
	volumes, snapshots := l.all()
	var errs []error
	var promised int64
	add := func(what string, bytes int64, may span, err error) {
		promised += bytes
		if err == nil && (bytes < may.least || bytes > may.most) {
			err = fmt.Errorf("%w: %s is promised %d bytes, want %d to %d", errHalf, what, bytes, may.least, may.most)
		}
		errs = append(errs, err)
	}
	for id, v := range volumes {
		may := span{v.size, v.size}
		if simple {
			may.most += v.beside
		}
		bytes, err := l.promisedVolume(id)
		add("volume "+id, bytes, may, err)
	}
	for id, s := range snapshots {
		may, err := l.mayHold(id, s, simple)
		bytes, readErr := l.promisedSnapshot(id)
		add("snapshot "+id, bytes, may, errors.Join(err, readErr))
	}
	foreign, err := l.indistinct()
	errs = append(errs, err)
	if want := l.atFirst - promised; now > want+slack || now < want-slack-foreign {
		errs = append(errs, fmt.Errorf("%w: %d bytes can be provisioned, want %d: at first %d, and %d are promised to %q and %q", errHalf, now, want,
			l.atFirst, promised, slices.Sorted(maps.Keys(volumes)), slices.Sorted(maps.Keys(snapshots))))
	}
	return errors.Join(errs...)
}

func (l *load) simpleQuotas() (bool, error) {
	pool, err := os.Open(l.node.pool)
	if err != nil {
		return false, err
	}
	defer pool.Close()
	if is, err := subvolume.IsBtrfs(pool); err != nil || !is {
		return false, err
	}
	mode, err := subvolume.Quota(pool)
	return mode == subvolume.QuotaSimple, err
}

// mayHold is what a snapshot holds: what is on the disk, and where quotas are
// simple what its volume's quota said besides: bytes that the volume had
// replaced and other copies of it kept, and what it shared itself.
func (l *load) mayHold(id string, s *snapshotState, simple bool) (span, error) {
	bytes, err := diskUsage(l.dataOf("snapshots", id))
	may := span{max(0, bytes-metadata), bytes + metadata}
	if simple {
		may.most += s.source.shares()
	}
	return may, err
}

// indistinct is how many bytes of images that share with others may pass for
// foreign: what a copy has written itself (docs/design.md, "What is foreign").
func (l *load) indistinct() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(l.node.pool, &fs); err != nil || fs.Type != unix.XFS_SUPER_MAGIC {
		return 0, err
	}
	return l.copied()
}

// dataOf is where a volume or snapshot is.
func (l *load) dataOf(what, id string) string {
	path := filepath.Join(l.node.pool, what, id)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path += ".img"
	}
	return path
}

// diskUsage is the bytes that a file, or all of a directory, takes, shared or
// not (stat(2)).
func diskUsage(path string) (sum int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return err
	})
	return sum, err
}

func (l *load) promisedVolume(id string) (int64, error) {
	var r struct {
		Spec struct {
			Size int64 `json:"size"`
		} `json:"spec"`
		Beside int64 `json:"beside"`
	}
	err := l.readRecord("volumes", id, &r)
	return r.Spec.Size + r.Beside, err
}

func (l *load) promisedSnapshot(id string) (int64, error) {
	var r struct {
		Held int64 `json:"held"`
	}
	err := l.readRecord("snapshots", id, &r)
	return r.Held, err
}

func (l *load) readRecord(of, id string, r any) error {
	data, err := os.ReadFile(filepath.Join(l.node.pool, ".plinth", of, id+".json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, r)
}
