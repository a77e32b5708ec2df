//go:build bench

package bench

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// spent is the CPU time of all programs of this machine by name, threads of
// the kernel by their kind. It is for finding where time goes: processes that
// end meanwhile are missing.
type spent map[string]time.Duration

func readSpent() spent {
	out := spent{}
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range all {
		p := process{filepath.Base(dir)}
		name, err := os.ReadFile(dir + "/comm")
		used, err2 := p.cpu()
		if err != nil || err2 != nil {
			continue // it has ended
		}
		kind, _, _ := strings.Cut(strings.TrimSpace(string(name)), "/")
		out[kind] += used
	}
	return out
}

// since lists the programs that took most since before, for each of n claims.
func (s spent) since(before spent, n int) string {
	const listed = 8
	names := slices.SortedFunc(maps.Keys(s), func(a, b string) int { return cmp.Compare(s[b]-before[b], s[a]-before[a]) })
	var out []string
	for _, name := range names[:min(len(names), listed)] {
		out = append(out, fmt.Sprintf("%.1f ms %s", (s[name]-before[name]).Seconds()*1e3/float64(n), name))
	}
	return strings.Join(out, ", ")
}
