// Package mkfs makes ext4 and XFS, once and on nothing else: it knows which
// arguments of mkfs.ext4(8) and mkfs.xfs(8) may be chosen by others, and looks
// for what is there before it formats.
package mkfs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ErrOption says that an argument for mkfs is not one of those that may be
// chosen. None of these names a file or a device, forces anything, or makes
// what cannot be mounted on every disk, grown and copied.
var ErrOption = errors.New("mkfs option not allowed")

// value says which values an option takes, and how they are told to people.
type value struct {
	says  string
	takes func(string) bool
}

// flag is an option of one letter. It takes a value, or a list with commas of
// keys and their values; the value of a key is nil if it stands alone.
type flag struct {
	value *value
	keys  map[string]*value
}

// allowed is what may be chosen, by filesystem and letter. Blocks have 4096
// bytes: smaller ones do not fit the sectors of every disk, larger ones not
// the memory pages of every machine.
var allowed = map[string]map[string]flag{
	"ext4": {
		"-b": {value: oneOf("4096")},
		"-i": {value: number(1024, 64<<20)}, // bytes for each inode
		"-I": {value: oneOf("256", "512", "1024", "2048", "4096")},
		"-m": {value: number(0, 50)}, // percent kept for root
		"-N": {value: number(16, 1<<32-1)},
		"-E": {keys: map[string]*value{
			"lazy_itable_init": bit(), "lazy_journal_init": bit(), "packed_meta_blocks": bit(),
			"stride": number(1, 1<<20), "stripe_width": number(1, 1<<24), // blocks
		}},
		"-O": {keys: features("casefold", "ea_inode", "encrypt", "fast_commit", "inline_data",
			"large_dir", "orphan_file", "project", "quota", "verity")},
	},
	"xfs": {
		"-b": {keys: map[string]*value{"size": oneOf("4096", "4k")}},
		"-i": {keys: map[string]*value{"size": oneOf("512", "1024", "2048"), "maxpct": number(0, 100), "sparse": bit()}},
		"-m": {keys: map[string]*value{"crc": oneOf("1"), "reflink": bit(), "rmapbt": bit(), "finobt": bit(), "inobtcount": bit(), "bigtime": bit()}},
		"-l": {keys: map[string]*value{"size": size()}},
		"-d": {keys: map[string]*value{"su": size(), "sw": number(1, 1024), "agcount": number(1, 1<<20), "agsize": size()}},
	},
}

func oneOf(values ...string) *value {
	return &value{says: strings.Join(values, "|"), takes: func(s string) bool { return slices.Contains(values, s) }}
}

func bit() *value { return oneOf("0", "1") }

// number takes plain digits only.
func number(least, most uint64) *value {
	return &value{says: fmt.Sprintf("%d..%d", least, most), takes: func(s string) bool {
		n, err := strconv.ParseUint(s, 10, 64)
		return err == nil && n >= least && n <= most && s[0] != '+'
	}}
}

// size takes digits, and one letter that multiplies them.
func size() *value {
	return &value{says: "BYTES[k|m|g]", takes: func(s string) bool {
		digits := strings.TrimRight(s, "kmg")
		return len(s)-len(digits) <= 1 && number(1, 1<<40).takes(digits)
	}}
}

// features take no value; a ^ before one switches it off.
func features(names ...string) map[string]*value {
	out := map[string]*value{}
	for _, name := range names {
		out[name], out["^"+name] = nil, nil
	}
	return out
}

// FSTypes are the filesystems that are made.
func FSTypes() []string { return slices.Sorted(maps.Keys(allowed)) }

// Check answers ErrOption, with what is allowed, unless all options may be
// chosen for that filesystem. They are arguments as mkfs takes them, each
// letter once: "-i", "8192" or "-i8192".
func Check(fsType string, options []string) error {
	_, err := parse(fsType, options)
	return err
}

// parse gives the value of each letter.
func parse(fsType string, options []string) (map[string]string, error) {
	flags, known := allowed[fsType]
	if !known {
		return nil, fmt.Errorf("%w: there are none for %.20q", ErrOption, fsType)
	}
	out := map[string]string{}
	for rest := options; len(rest) > 0; {
		letter, text := rest[0], ""
		rest = rest[1:]
		if len(letter) > 2 {
			letter, text = letter[:2], letter[2:]
		} else if len(rest) > 0 {
			text, rest = rest[0], rest[1:]
		}
		f, ok := flags[letter]
		if !ok || !f.takes(text) {
			return nil, fmt.Errorf("%w: %.100q for %s; allowed are %s", ErrOption, strings.TrimSpace(letter+" "+text), fsType, list(flags))
		}
		if _, twice := out[letter]; twice {
			return nil, fmt.Errorf("%w: %s is there twice; give it once, with commas", ErrOption, letter)
		}
		out[letter] = text
	}
	return out, nil
}

func (f flag) takes(text string) bool {
	if f.value != nil {
		return text != "" && f.value.takes(text)
	}
	for part := range strings.SplitSeq(text, ",") {
		key, v, has := strings.Cut(part, "=")
		want, known := f.keys[key]
		if !known || has != (want != nil) || has && (v == "" || !want.takes(v)) {
			return false
		}
	}
	return true
}

// list tells people what is allowed.
func list(flags map[string]flag) string {
	var out []string
	for _, letter := range slices.Sorted(maps.Keys(flags)) {
		f := flags[letter]
		if f.value != nil {
			out = append(out, letter+" "+f.value.says)
			continue
		}
		var keys []string
		for _, key := range slices.Sorted(maps.Keys(f.keys)) {
			switch {
			case f.keys[key] != nil:
				keys = append(keys, key+"="+f.keys[key].says)
			case !strings.HasPrefix(key, "^"):
				keys = append(keys, "[^]"+key)
			}
		}
		out = append(out, letter+" "+strings.Join(keys, ","))
	}
	return strings.Join(out, "; ")
}
