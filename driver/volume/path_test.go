package volume

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestPaths(t *testing.T) {
	long := strings.Repeat("a", maxPathSegment)
	for path, ok := range map[string]bool{
		"a": true, "shop/data-db-0": true, "shop/www.example.org": true, "A/b_c": true, "a..b": true, long: true,
		"1/2/3/4/5/6/7/8": true, "1/2/3/4/5/6/7/8/9": false, long + "a": false, long + "/" + long + "/a": false,
		"": false, "/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/..": false, "../a": false,
		"a/../b": false, "a/./b": false, ".a": false, "a/.b": false, "..a": false, "-a": false, "_a": false, "a b": false,
		"a\x00": false, "a\n": false, "a\\b": false, "ä": false, "{claim}": false, "a/${x}": false,
	} {
		got, err := ParsePath(path)
		if (err == nil) != ok || ok && string(got) != path || !ok && (!errors.Is(err, ErrInvalid) || got != "") {
			t.Errorf("%.40q: %q, %v", path, got, err)
		}
	}
}

func TestPathsClash(t *testing.T) {
	for _, c := range []struct {
		a, b Path
		want bool
	}{
		{"a", "a", true}, {"a", "a/b", true}, {"a/b/c", "a", true}, {"a", "ab", false}, {"a/b", "a/c", false}, {"a-b", "a/b", false},
	} {
		if c.a.Clashes(c.b) != c.want || c.b.Clashes(c.a) != c.want {
			t.Errorf("%s and %s: want %t", c.a, c.b, c.want)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("shop/data")
	f.Add("a/../../etc")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		if !filepath.IsLocal(string(p)) || filepath.Clean(string(p)) != string(p) || strings.Contains("/"+string(p), "/.") {
			t.Errorf("%q", p)
		}
	})
}
