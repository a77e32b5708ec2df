package quota

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Named reads the projects that people have given a name or a directory, used
// or not: projid(5) and projects(5) in a directory, which is /etc. A file that
// is not there names none, and neither does a line that cannot be read.
func Named(etc fs.FS) (map[Project]bool, error) {
	out := map[Project]bool{}
	for file, field := range map[string]int{"projid": 1, "projects": 0} { // name:ID and ID:path
		f, err := etc.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the projects that have a name: %w", err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Split(lines.Text(), ":")
			if len(fields) < 2 {
				continue
			}
			if id, err := strconv.ParseUint(strings.TrimSpace(fields[field]), 10, 32); err == nil {
				out[Project(id)] = true
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("read the projects that have a name: %s: %w", file, err)
		}
	}
	return out, nil
}
