package mount

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// parse reads a text as list reads that of the kernel.
func parse(text string) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
	return mounts(infos), err
}

// escape is what the kernel does to a path or a name in mountinfo
// (linux: fs/proc_namespace.c, mangle and seq_path_root).
func escape(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if strings.IndexByte(" \t\n\\#", s[i]) >= 0 {
			fmt.Fprintf(&out, "\\%03o", s[i])
		} else {
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

// line is a mount as mountinfo has it.
func line(m Mount, optional string) string {
	return fmt.Sprintf("%d 1 %d:%d %s %s %s%s - %s %s %s\n", m.ID, m.Major, m.Minor, escape(m.Root), escape(m.Point),
		strings.Join(m.Options, ","), optional, escape(m.FSType), escape(m.Source), strings.Join(m.SuperOptions, ","))
}

func same(a, b Mount) bool {
	return a.ID == b.ID && a.Major == b.Major && a.Minor == b.Minor && a.Root == b.Root && a.Point == b.Point && a.FSType == b.FSType &&
		a.Source == b.Source && slices.Equal(a.Options, b.Options) && slices.Equal(a.SuperOptions, b.SuperOptions)
}

func TestParse(t *testing.T) {
	plain := Mount{
		ID: 7, Major: 8, Minor: 1, Root: "/", Point: "/mnt", FSType: "ext4", Source: "/dev/sda1",
		Options: []string{"rw", "noatime"}, SuperOptions: []string{"rw", "prjquota"},
	}
	for _, c := range []struct {
		name, optional string
		change         func(*Mount)
	}{
		{"plain", "", func(*Mount) {}},
		{"propagation", " shared:12 master:3", func(*Mount) {}},
		{"a tag that nobody knows", " new:x unbindable", func(*Mount) {}},
		{"a space, a tab and a newline", "", func(m *Mount) { m.Point = "/a b\tc\nd" }},
		{"backslashes that look like an escape", "", func(m *Mount) { m.Point, m.Root = `/a\040b`, `/\\` }},
		{"a hash", "", func(m *Mount) { m.Point, m.Source = "/#1", "#" }},
		{"bytes that are no text", "", func(m *Mount) { m.Point = "/\xff\x01\x7f" }},
		{"a separator for a name", " shared:1", func(m *Mount) { m.Root, m.Point, m.Source = "/ - ", "/-", "-" }},
		{"no source", "", func(m *Mount) { m.Source = "" }},
		{"a directory that was deleted", "", func(m *Mount) { m.Root = "/volumes/x//deleted" }},
		{"read-only", "", func(m *Mount) { m.Options = []string{"ro"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := plain
			c.change(&want)
			got, err := parse(line(plain, "") + line(want, c.optional))
			if err != nil || len(got) != 2 || !same(got[0], plain) || !same(got[1], want) {
				t.Fatalf("%q: %+v, %v", line(want, c.optional), got, err)
			}
			if got[1].ReadOnly() != (c.name == "read-only") || !got[1].HasSuperOption("prjquota") {
				t.Errorf("%+v", got[1])
			}
		})
	}
	for name, text := range map[string]string{
		"too few fields": "7 1 8:1 / /mnt rw - ext4\n",
		"no separator":   "7 1 8:1 / /mnt rw a b c d e f\n",
		"half an escape": "7 1 8:1 / /mnt\\04 rw - ext4 /dev/sda1 rw\n",
		"no number":      "7 1 8 / /mnt rw - ext4 /dev/sda1 rw\n",
		"an empty line":  "\n",
	} {
		if got, err := parse(text); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// FuzzParse: whatever the text, there is no panic, and what was read is read
// again from what the kernel would write of it.
func FuzzParse(f *testing.F) {
	f.Add("7 1 8:1 / /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw\n")
	f.Add("7 1 8:1 /a\\040b /m\\134nt rw - ext4 - rw,x y\n")
	f.Add("7 1 8:1 / / rw - - - - -\n")
	f.Add("1 1 0:1 /\\777 /\\400 r -  - \n")
	f.Add("-1 x :: / /mnt rw - - \\011 \xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parse(text)
		if err != nil || strings.ContainsRune(text, '\r') {
			return // the kernel ends no line with a carriage return
		}
		for _, m := range got {
			if strings.ContainsAny(strings.Join(m.SuperOptions, ","), " ") {
				continue // as a kernel before 3.10 wrote them; not to be told from a field
			}
			again, err := parse(line(m, ""))
			if err != nil || len(again) != 1 || !same(again[0], m) {
				t.Errorf("%q: %+v, then %+v, %v", text, m, again, err)
			}
		}
	})
}

// FuzzEscapes: a mount point of whatever bytes comes back as it was.
func FuzzEscapes(f *testing.F) {
	f.Add("/plain", "/dev/sda1")
	f.Add("/a b\n\\040", "none")
	f.Add("/ - ", " - ")
	f.Fuzz(func(t *testing.T, point, source string) {
		want := Mount{Root: "/", Point: point, FSType: "ext4", Source: source, Options: []string{"rw"}, SuperOptions: []string{"rw"}}
		got, err := parse(line(want, ""))
		if err != nil || len(got) != 1 || !same(got[0], want) {
			t.Errorf("%q, %q: %+v, %v", point, source, got, err)
		}
	})
}

// TestThisMachine: for every mount of this machine that can be reached, the
// kernel's own number of the mount is the one that was read (statx(2),
// STATX_MNT_ID).
func TestThisMachine(t *testing.T) {
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for s := bufio.NewScanner(strings.NewReader(string(table))); s.Scan(); {
		id, err := strconv.Atoi(strings.Fields(s.Text())[0])
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
	}
	top := map[string]Mount{}
	for _, m := range all {
		top[m.Point] = m
	}
	checked := 0
	for point, m := range top {
		var st unix.Statx_t
		if !ids[m.ID] || unix.Statx(unix.AT_FDCWD, point, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st) != nil {
			continue // gone since, or hidden
		}
		if st.Mask&unix.STATX_MNT_ID == 0 {
			t.Skip("this kernel does not tell the number of a mount")
		}
		if int(st.Mnt_id) == m.ID {
			checked++
		} else if _, known := ids[int(st.Mnt_id)]; known {
			// Another mount lies over one of the directories above it.
			if c, err := Containing(point); err != nil || !slices.ContainsFunc(all, func(o Mount) bool { return o.ID == int(st.Mnt_id) }) {
				t.Errorf("%s: mount %d by mountinfo, %d by statx (%+v, %v)", point, m.ID, st.Mnt_id, c, err)
			}
		}
	}
	if checked == 0 {
		t.Error("no mount of this machine was recognised")
	}
}
