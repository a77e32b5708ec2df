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

// spent is the CPU time of every process of this machine, and of threads of
// the kernel. It is for finding where time goes: what ends meanwhile is missing.
type spent map[process]time.Duration

func readSpent() spent {
	out := spent{}
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range all {
		p := process{filepath.Base(dir)}
		if used, err := p.cpu(); err == nil { // else it has ended
			out[p] = used
		}
	}
	return out
}

// since lists the programs that took most since before, for each of n claims.
func (s spent) since(before spent, n int) string {
	const listed = 8
	by := map[string]time.Duration{}
	for p, used := range s {
		name, err := os.ReadFile("/proc/" + p.pid + "/comm")
		if err == nil {
			kind, _, _ := strings.Cut(strings.TrimSpace(string(name)), "/") // of a kernel's thread
			by[kind] += used - before[p]
		}
	}
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return cmp.Compare(by[b], by[a]) })
	var out []string
	for _, name := range names[:min(len(names), listed)] {
		out = append(out, fmt.Sprintf("%.1f ms %s", by[name].Seconds()*1e3/float64(n), name))
	}
	return strings.Join(out, ", ")
}
