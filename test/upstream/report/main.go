// Report reads the reports of ginkgo (--json-report) and prints what passed,
// what failed, and what was skipped and why. It fails when a test failed, when
// nothing ran, and when a skip is not in the list of those that are known.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// suite and spec are what ginkgo's types.Report has of use here.
type suite struct {
	SpecReports []spec
}

type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
}

// outcome of one driver's tests.
type outcome struct {
	driver        string
	passed        []string
	failed, skips map[string]string // name: why
	unknown       []string          // reasons of skips that are not in the list
}

func main() {
	asJSON := flag.Bool("json", false, "print as go test -json does")
	list := flag.String("skips", "", "file of known reasons of skips, one a line")
	flag.Parse()
	known, err := readSkips(*list)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bad := flag.NArg() == 0
	for _, path := range flag.Args() {
		o, err := read(path, known)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			bad = true
			continue
		}
		if *asJSON {
			o.events(os.Stdout)
		} else {
			o.print(os.Stdout)
		}
		bad = bad || len(o.failed) > 0 || len(o.unknown) > 0 || len(o.passed) == 0
	}
	if bad {
		os.Exit(1)
	}
}

// readSkips returns the known reasons: those of lines that are not empty and
// no comment. A reason is known if it contains one of them.
func readSkips(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var known []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			known = append(known, line)
		}
	}
	return known, nil
}

func read(path string, known []string) (*outcome, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var suites []suite
	if err := json.Unmarshal(raw, &suites); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	o := &outcome{driver: strings.TrimSuffix(filepath.Base(path), ".json"), failed: map[string]string{}, skips: map[string]string{}}
	for _, s := range suites {
		for _, sp := range s.SpecReports {
			o.add(sp, known)
		}
	}
	return o, nil
}

func (o *outcome) add(s spec, known []string) {
	switch {
	case s.State == "passed" && s.LeafNodeType == "It":
		o.passed = append(o.passed, s.name())
	case s.State == "passed", s.State == "pending":
	case s.State == "skipped":
		// One without a reason was left out by the focus.
		if s.Failure.Message == "" {
			return
		}
		o.skips[s.name()] = s.Failure.Message
		if !slices.ContainsFunc(known, func(k string) bool { return strings.Contains(s.Failure.Message, k) }) {
			o.unknown = append(o.unknown, s.name()+": "+s.Failure.Message)
		}
	default:
		o.failed[s.LeafNodeType+" "+s.name()] = s.State + ": " + s.Failure.Message
	}
}

func (o *outcome) print(w io.Writer) {
	reasons := map[string]int{}
	for _, why := range o.skips {
		reasons[why]++
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(w, "%s: %4d skipped: %s\n", o.driver, reasons[why], why)
	}
	for _, u := range o.unknown {
		fmt.Fprintf(w, "%s: SKIPPED FOR NO KNOWN REASON: %s\n", o.driver, u)
	}
	for _, name := range slices.Sorted(maps.Keys(o.failed)) {
		fmt.Fprintf(w, "%s: FAILED: %s\n    %.1000s\n", o.driver, name, o.failed[name])
	}
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped\n", o.driver, len(o.passed), len(o.failed)+len(o.unknown), len(o.skips)-len(o.unknown))
}

// events prints the lines of go test -json that a count needs.
func (o *outcome) events(w io.Writer) {
	lines := json.NewEncoder(w)
	say := func(action, test, output string) {
		event := map[string]string{"Action": action, "Package": "upstream/" + o.driver, "Test": strings.ReplaceAll(test, "/", "|")}
		if output != "" {
			event["Output"] = output + "\n"
		}
		_ = lines.Encode(event) // standard output: whoever reads it is gone
	}
	for _, name := range o.passed {
		say("pass", name, "")
	}
	for _, name := range slices.Sorted(maps.Keys(o.failed)) {
		say("output", name, o.failed[name])
		say("fail", name, "")
	}
	for _, name := range slices.Sorted(maps.Keys(o.skips)) {
		action := "skip"
		if slices.Contains(o.unknown, name+": "+o.skips[name]) {
			action = "fail"
		}
		say("output", name, o.skips[name])
		say(action, name, "")
	}
}
