package volume

import (
	"errors"
	"path"
	"strings"
	"testing"
)

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		name string
		same bool // the name is its own ID
	}{
		{"pvc-0b8e5c1e-6c1a-4f5e-8a35-4bd0bb6d8a3f", true}, {"a", true}, {strings.Repeat("a", 63), true},
		{strings.Repeat("a", 64), false}, {"Upper", false}, {"-a", false}, {"a-", false}, {"a.b", false},
		{"../../etc", false}, {"a/b", false}, {"a\nb", false}, {"", false}, {".", false}, {"ä", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := ParseID(c.name)
			if (err == nil) != c.same || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("ParseID: %q, %v", id, err)
			}
			forName := IDForName(c.name)
			if (string(forName) == c.name) != c.same || forName != IDForName(c.name) {
				t.Errorf("IDForName: %q", forName)
			}
			if _, err := ParseID(string(forName)); err != nil {
				t.Error(err)
			}
		})
	}
	if IDForName("A") == IDForName("B") {
		t.Error("two names, one ID")
	}
}

func FuzzID(f *testing.F) {
	f.Add("pvc-1")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		id := IDForName(name)
		if _, err := ParseID(string(id)); err != nil {
			t.Errorf("%q gives %q: %v", name, id, err)
		}
		if s := string(id); path.Base(s) != s || path.Clean(s) != s || s == "." || s == ".." {
			t.Errorf("%q is no plain path element", s)
		}
	})
}
