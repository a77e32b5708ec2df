//go:build root

package image

import (
	"errors"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/volume"
	"golang.org/x/sys/unix"
)

// TestMkfsOptions: a volume has what was chosen for it, through growth and in
// a copy; what may not be chosen is refused before anything is made.
func TestMkfsOptions(t *testing.T) {
	b, err := Open(t.Context(), Options{Dir: loopfs.New(t, loopfs.Options{Type: "xfs"}).Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, c := range []struct {
		spec volume.Spec
		want error
	}{
		{volume.Spec{Mode: volume.Filesystem, FSType: "ext4", MkfsOptions: []string{"-d", "/etc"}}, volume.ErrInvalid},
		{volume.Spec{Mode: volume.Filesystem, FSType: "xfs", MkfsOptions: []string{"-N", "1000"}}, volume.ErrInvalid},
		{volume.Spec{Mode: volume.Block, MkfsOptions: []string{"-N", "1000"}}, volume.ErrUnsupported},
		{volume.Spec{Mode: volume.Filesystem, Attributes: volume.Attributes{Inodes: 1000}}, volume.ErrUnsupported},
	} {
		c.spec.ID, c.spec.Size = "refused", 512<<20
		if _, err := b.Ensure(t.Context(), c.spec); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	spec := volume.Spec{ID: "few", Mode: volume.Filesystem, FSType: "ext4", Size: 64 << 20, MkfsOptions: []string{"-N", "1024"}}
	for range 2 {
		if _, err := b.Ensure(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	if n := inodes(t, b, spec.ID); n != 1024 {
		t.Errorf("it has %d inodes, 1024 were asked", n)
	}
	clone := spec
	clone.ID, clone.MkfsOptions = "copy", nil
	if _, err := b.Clone(t.Context(), spec.ID, clone, nil); err != nil {
		t.Fatal(err)
	}
	if n := inodes(t, b, clone.ID); n != 1024 {
		t.Errorf("its copy has %d inodes", n)
	}
	infos, err := b.List(t.Context())
	if err != nil || len(infos) != 2 {
		t.Errorf("List: %v, %v", infos, err)
	}
}

// inodes counts those that a volume's filesystem has.
func inodes(t *testing.T, b *Image, id volume.ID) int64 {
	t.Helper()
	src, err := b.Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount(src.Device, dir, src.FSType, unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	u, err := b.Usage(t.Context(), id, dir)
	if err := errors.Join(err, unix.Unmount(dir, 0), b.Detach(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	if u.UsedInodes <= 0 || u.UsedInodes+u.AvailableInodes != u.TotalInodes || u.UsedBytes <= 0 {
		t.Errorf("usage of a mounted volume: %+v", u)
	}
	return u.TotalInodes
}
