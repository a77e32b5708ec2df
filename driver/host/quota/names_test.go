package quota

import (
	"maps"
	"testing"
	"testing/fstest"
)

func TestNamed(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  []Project
	}{
		"no files": {fstest.MapFS{}, nil},
		"both": {fstest.MapFS{
			"projid":   {Data: []byte("# people\nlogs:1342177280\nbuild: 7\n\nbroken\n")},
			"projects": {Data: []byte("1342177281:/srv/logs\n7:/srv/build:extra\nx:/y\n-1:/z\n4294967296:/w\n")},
		}, []Project{1342177280, 7, 1342177281}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Named(c.files)
			want := map[Project]bool{}
			for _, id := range c.want {
				want[id] = true
			}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		})
	}
}
