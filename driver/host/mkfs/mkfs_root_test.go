//go:build root

package mkfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
	"github.com/plinth-csi/plinth/driver/host/run"
)

// TestFormatsOnlyWhatIsBlank puts what others know a file by into it, and
// finds it untouched.
func TestFormatsOnlyWhatIsBlank(t *testing.T) {
	loopfs.NeedTool(t, "blkid", "util-linux")
	loopfs.NeedTool(t, "mkfs.ext4", "e2fsprogs")
	loopfs.NeedTool(t, "mkfs.xfs", "xfsprogs")
	luks := append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 504)...)
	for name, fill := range map[string]func(t *testing.T, f *os.File){
		"ext4": func(t *testing.T, f *os.File) { format(t, f, "ext4") },
		"xfs":  func(t *testing.T, f *os.File) { format(t, f, "xfs") },
		"swap": func(t *testing.T, f *os.File) {
			put(t, f, 1024, []byte{1, 0, 0, 0, 255, 0, 0, 0}) // version, last page
			put(t, f, 4086, []byte("SWAPSPACE2"))
		},
		"LUKS": func(t *testing.T, f *os.File) { put(t, f, 0, luks) },
		"DOS partitions": func(t *testing.T, f *os.File) {
			put(t, f, 446, []byte{0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0})
			put(t, f, 510, []byte{0x55, 0xaa})
		},
		"two at once": func(t *testing.T, f *os.File) {
			format(t, f, "xfs")
			put(t, f, 1024+56, []byte{0x53, 0xef})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := blankFile(t)
			fill(t, f)
			before, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			for _, fsType := range FSTypes() {
				if err := Format(t.Context(), run.Exec{}, f, Wish{FSType: fsType}); !errors.Is(err, ErrNotBlank) {
					t.Errorf("%s over it: %v", fsType, err)
				}
			}
			after, err := f.Stat()
			if err != nil || !after.ModTime().Equal(before.ModTime()) {
				t.Errorf("it was written to (%v)", err)
			}
		})
	}
}

// TestOptionsTake makes filesystems with every option that is allowed, and
// with the UUID that they are to have.
func TestOptionsTake(t *testing.T) {
	const uuid = "0e0b8ae6-4f4c-4c05-9f9c-6f3d8f0f2a11"
	loopfs.NeedTool(t, "mkfs.ext4", "e2fsprogs")
	loopfs.NeedTool(t, "mkfs.xfs", "xfsprogs")
	for fsType, list := range map[string][][]string{
		"ext4": {
			{"-b", "4096", "-i", "65536", "-I", "512", "-m", "3"}, {"-N", "1000"},
			{"-E", "stride=16,stripe_width=64,lazy_itable_init=0,lazy_journal_init=1,packed_meta_blocks=1"},
			{"-O", "ea_inode,encrypt,fast_commit,inline_data,large_dir,orphan_file,project,quota,verity"},
			{"-O", "casefold"}, {"-O", "^orphan_file,^project"},
		},
		"xfs": {
			{"-b", "size=4096", "-i", "size=1024,maxpct=50,sparse=1", "-l", "size=64m"},
			{"-m", "crc=1,reflink=1,rmapbt=1,finobt=1,inobtcount=1,bigtime=1"}, {"-m", "reflink=0"},
			{"-d", "su=64k,sw=4"}, {"-d", "agcount=2"},
		},
	} {
		for _, options := range list {
			t.Run(fsType+strings.Join(options, " "), func(t *testing.T) {
				f := blankFile(t)
				if err := Format(t.Context(), run.Exec{}, f, Wish{FSType: fsType, Options: options, UUID: uuid, Zeros: true}); err != nil {
					t.Fatal(err)
				}
				if found, err := Probe(t.Context(), run.Exec{}, f.Name()); err != nil || found != (Found{What: fsType, UUID: uuid}) {
					t.Errorf("found is %+v, %v", found, err)
				}
			})
		}
	}
}

func blankFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err == nil {
		err = f.Truncate(1 << 30)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func format(t *testing.T, f *os.File, fsType string) {
	t.Helper()
	if err := Format(t.Context(), run.Exec{}, f, Wish{FSType: fsType, Zeros: true}); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, f *os.File, at int64, data []byte) {
	t.Helper()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}
