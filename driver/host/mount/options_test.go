package mount

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		options []string
		flags   uintptr
		data    string
	}{
		{nil, 0, ""},
		{[]string{"defaults", ""}, 0, ""},
		{[]string{"ro", "nosuid", "nodev"}, unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, ""},
		{[]string{"ro", "rw"}, 0, ""},
		{[]string{"noatime", "discard", "commit=5"}, unix.MS_NOATIME, "discard,commit=5"},
	} {
		flags, data := parseOptions(c.options)
		if flags != c.flags || data != c.data {
			t.Errorf("%q: %#x %q", c.options, flags, data)
		}
	}
}
