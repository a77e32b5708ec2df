package mkfs

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		fsType  string
		options []string
		ok      bool
	}{
		{"ext4", nil, true},
		{"ext4", []string{"-i", "8192", "-I", "512", "-m", "1", "-N", "100000"}, true},
		{"ext4", []string{"-i8192", "-m0"}, true},
		{"ext4", []string{"-E", "stride=16,stripe_width=64,lazy_itable_init=0"}, true},
		{"ext4", []string{"-O", "quota,project,^orphan_file"}, true},
		{"ext4", []string{"-b", "4096"}, true},
		{"xfs", []string{"-b", "size=4096", "-i", "size=1024,maxpct=50", "-m", "reflink=0,rmapbt=1", "-l", "size=64m", "-d", "su=64k,sw=4"}, true},

		{"ntfs", nil, false},
		{"ext4", []string{"-b", "1024"}, false},
		{"ext4", []string{"-b", "4096", "-b", "4096"}, false},
		{"ext4", []string{"-i"}, false},
		{"ext4", []string{"-i", ""}, false},
		{"ext4", []string{"-i", "+8192"}, false},
		{"ext4", []string{"-i", "-1"}, false},
		{"ext4", []string{"-i", "8192 /dev/sda"}, false},
		{"ext4", []string{"-m", "51"}, false},
		{"ext4", []string{"/dev/sda"}, false},
		{"ext4", []string{"-i", "8192", "/dev/sda"}, false},
		{"ext4", []string{"--", "/dev/sda"}, false},
		{"ext4", []string{""}, false},
		{"ext4", []string{"-"}, false},
		{"ext4", []string{"-F"}, false},
		{"ext4", []string{"-d", "/etc"}, false},
		{"ext4", []string{"-d/etc"}, false},
		{"ext4", []string{"-J", "device=/dev/sda"}, false},
		{"ext4", []string{"-U", "random"}, false},
		{"ext4", []string{"-E", "discard"}, false},
		{"ext4", []string{"-E", "stride"}, false},
		{"ext4", []string{"-E", "stride=16,,"}, false},
		{"ext4", []string{"-E", "offset=4096"}, false},
		{"ext4", []string{"-O", "^has_journal"}, false},
		{"ext4", []string{"-O", "^metadata_csum_seed"}, false},
		{"ext4", []string{"-O", "quota=1"}, false},
		{"xfs", []string{"-d", "file,name=/etc/passwd"}, false},
		{"xfs", []string{"-d", "name=/dev/sda"}, false},
		{"xfs", []string{"-d", "size=1g"}, false},
		{"xfs", []string{"-l", "logdev=/dev/sda"}, false},
		{"xfs", []string{"-l", "size=64mm"}, false},
		{"xfs", []string{"-l", "size=m"}, false},
		{"xfs", []string{"-r", "rtdev=/dev/sda"}, false},
		{"xfs", []string{"-p", "/etc/passwd"}, false},
		{"xfs", []string{"-c", "options=/etc/passwd"}, false},
		{"xfs", []string{"-m", "crc=0"}, false},
		{"xfs", []string{"-m", "uuid=4096"}, false},
		{"xfs", []string{"-b", "size=1024"}, false},
	} {
		err := Check(c.fsType, c.options)
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrOption) {
			t.Errorf("%s %q: %v", c.fsType, c.options, err)
		}
	}
}

func TestCheckTellsWhatIsAllowed(t *testing.T) {
	err := Check("xfs", []string{"-d", "name=/dev/sda"})
	for _, want := range []string{`"-d name=/dev/sda"`, "agcount=1..1048576", "su=BYTES[k|m|g]", "-b size=4096|4k"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		wish Wish
		want string
	}{
		{Wish{FSType: "ext4", Zeros: true}, "mkfs.ext4 -q -F -E nodiscard,assume_storage_prezeroed=1 -O metadata_csum_seed -b 4096 -m 0"},
		{Wish{FSType: "ext4", UUID: "u"}, "mkfs.ext4 -q -F -E nodiscard -O metadata_csum_seed -U u -b 4096 -m 0"},
		{Wish{FSType: "ext4", Options: []string{"-m5", "-O", "quota", "-E", "stride=16"}, Zeros: true},
			"mkfs.ext4 -q -F -E nodiscard,assume_storage_prezeroed=1,stride=16 -O metadata_csum_seed,quota -b 4096 -m 5"},
		{Wish{FSType: "xfs", Options: []string{"-m", "reflink=0"}, Zeros: true}, "mkfs.xfs -q -f -K -m reflink=0 -s size=4096"},
		{Wish{FSType: "xfs", Options: []string{"-m", "reflink=0"}, UUID: "u"}, "mkfs.xfs -q -f -K -m uuid=u,reflink=0 -s size=4096"},
		{Wish{FSType: "xfs"}, "mkfs.xfs -q -f -K -s size=4096"},
	} {
		got, err := arguments(c.wish)
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%+v: %q, %v", c.wish, got, err)
		}
	}
}
