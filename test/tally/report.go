package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report prints what failed and what was skipped, with reasons, then the one
// line that counts, and says whether all is well.
func (r *runner) report() bool {
	var passed, failed, skipped int
	all := merge(r.results)
	for _, res := range r.results {
		counted := all[res.name]
		p, f, s := res.total(counted)
		passed, failed, skipped = passed+p, failed+f, skipped+s
		leaves := counted.leaves()
		keys := slices.SortedFunc(maps.Keys(leaves), func(a, b id) int { return cmp.Compare(a.String(), b.String()) })
		for _, k := range keys {
			if leaves[k] == "skip" {
				fmt.Fprintf(r.out, "skipped: %s: %s\n", k, reason(counted.output[k]))
			}
		}
		for _, k := range keys {
			if leaves[k] == "fail" {
				fmt.Fprintf(r.out, "FAILED: %s: %s: see %s\n", res.name, k, r.keep(res.step, k, counted.output[k]))
				for _, line := range gist(counted.output[k]) {
					fmt.Fprintf(r.out, "    %s\n", line)
				}
			}
		}
		if res.silent() {
			fmt.Fprintf(r.out, "FAILED: %s: %v: see %s\n", res.name, res.err, r.log(res.step))
		}
	}
	if passed == 0 && failed == 0 {
		failed++ // no test ran
	}
	fmt.Fprintf(r.out, "logs are in %s\n", r.logs)
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return failed == 0
}

// keep writes what one failed test printed to a file of its own, beside the logs.
func (r *runner) keep(s step, k id, output []string) string {
	name := strings.NewReplacer("/", "_", " ", "_").Replace(filepath.Base(k.pkg) + "." + k.test)
	path := filepath.Join(r.logs, "failed-"+s.name+"-"+strings.TrimSuffix(name, ".")+".log")
	if len(output) == 0 || os.WriteFile(path, []byte(strings.Join(output, "")), 0o644) != nil {
		return r.log(s)
	}
	return path
}

// reason is what a skipped test said.
func reason(output []string) string { return strings.Join(said(output), " ") }

// gist is the beginning and the end of what a failed test said, for who has
// only what tally prints: a machine of CI takes its logs along when it goes.
func gist(output []string) []string {
	const first, last, width = 8, 12, 400
	lines := said(output)
	if cut := len(lines) - first - last; cut > 0 {
		lines = slices.Concat(lines[:first], []string{fmt.Sprintf("... %d lines ...", cut)}, lines[len(lines)-last:])
	}
	for i, line := range lines {
		if len(line) > width {
			lines[i] = line[:width] + " ..."
		}
	}
	return lines
}

// said is what a test printed, without the lines that go test wrote itself.
func said(output []string) []string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return said
}

// merge leaves each test in one step only, so that one that ran twice (with
// and without root) counts once: where it fared worst, or else last.
func merge(results []result) map[string]tests {
	rank := map[string]int{"skip": 0, "pass": 1, "fail": 2}
	best := map[id]int{}
	for i, res := range results {
		for k, outcome := range res.counts.outcome {
			if j, seen := best[k]; !seen || rank[outcome] >= rank[results[j].counts.outcome[k]] {
				best[k] = i
			}
		}
	}
	merged := map[string]tests{}
	for i, res := range results {
		t := newTests()
		for k, outcome := range res.counts.outcome {
			if best[k] == i {
				t.outcome[k] = outcome
				t.output[k] = res.counts.output[k]
			}
		}
		merged[res.name] = t
	}
	return merged
}
