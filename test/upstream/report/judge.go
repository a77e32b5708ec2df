package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// suite and spec are what ginkgo's types.Report has of use here.
type suite struct {
	SuiteSucceeded             bool
	SpecialSuiteFailureReasons []string
	SpecReports                []spec
}

type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct{ Message string }
}

// name is what --focus is matched with.
func (s spec) name() string {
	texts := slices.DeleteFunc(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), func(text string) bool { return text == "" })
	return strings.Join(texts, " ")
}

// driverOf finds the driver in a test's name; test/upstream/drivers have a
// TestTag "on DRIVER" each.
var driverOf = regexp.MustCompile(`^External Storage \[Driver: \S+\] on (\S+) `)

// test is one test of one driver.
type test struct{ driver, name string }

// outcome is how all tests went.
type outcome struct {
	passed []test
	// Why, of each.
	failed, skipped map[test]string
	leftOut         map[string]int // by tag
}

// judge sorts the tests. Skips without a reason are failures.
func judge(suites []suite, known []*reason, whole bool) outcome {
	o := outcome{failed: map[test]string{}, skipped: map[test]string{}, leftOut: map[string]int{}}
	for _, s := range suites {
		for _, sp := range s.SpecReports {
			o.add(sp, known, whole)
		}
		if !s.SuiteSucceeded && len(o.failed) == 0 {
			o.failed[test{"all", "the suite"}] = strings.Join(append(s.SpecialSuiteFailureReasons, "it did not succeed"), "; ")
		}
	}
	if len(o.passed) == 0 {
		o.failed[test{"all", "the suite"}] = "nothing passed"
	}
	for _, r := range known {
		if whole && !r.needed {
			o.failed[test{"all", fmt.Sprintf("line %d of the list of reasons", r.line)}] = "no test is skipped for it: " + r.text
		}
	}
	return o
}

// require makes failures of tests that neither passed nor failed.
func (o *outcome) require(chosen []test) {
	for _, t := range chosen {
		if o.failed[t] == "" && !slices.Contains(o.passed, t) {
			o.failed[t] = "it did not run"
		}
	}
}

func (o *outcome) add(s spec, known []*reason, whole bool) {
	full := s.name()
	at := test{"all", s.LeafNodeType + " " + full}
	if m := driverOf.FindStringSubmatch(full); m != nil {
		at = test{m[1], full[len(m[0]):]}
	} else if s.LeafNodeType == "It" && s.State == "skipped" {
		return // not of these drivers
	}
	switch {
	case s.State == "passed":
		if s.LeafNodeType == "It" {
			o.passed = append(o.passed, at)
		}
	case s.State == "skipped" && s.Failure.Message != "":
		if find(known, at.driver, s.Failure.Message) {
			o.skipped[at] = s.Failure.Message
		} else {
			o.failed[at] = "skipped for no known reason: " + s.Failure.Message
		}
	case s.State == "skipped" || s.State == "pending":
		// One that says nothing was not chosen.
		if tag, found := findTag(known, full); found {
			o.leftOut[tag]++
		} else if whole {
			o.failed[at] = "left out for no known reason"
		}
	default:
		o.failed[at] = s.State + ": " + s.Failure.Message
	}
}

func (o outcome) ok() bool { return len(o.failed) == 0 }

// drivers are those of all tests.
func (o outcome) drivers() []string {
	seen := map[string]bool{}
	for _, t := range o.passed {
		seen[t.driver] = true
	}
	for _, some := range []map[test]string{o.failed, o.skipped} {
		for t := range some {
			seen[t.driver] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (o outcome) print(w io.Writer) {
	for _, driver := range o.drivers() {
		passed, failed := 0, 0
		for _, t := range o.passed {
			if t.driver == driver {
				passed++
			}
		}
		reasons := map[string]int{}
		for t, why := range o.skipped {
			if t.driver == driver {
				reasons[why]++
			}
		}
		skipped := 0
		for _, why := range slices.Sorted(maps.Keys(reasons)) {
			skipped += reasons[why]
			fmt.Fprintf(w, "%s: %d skipped: %s\n", driver, reasons[why], why)
		}
		for _, t := range sorted(o.failed) {
			if t.driver == driver {
				failed++
				fmt.Fprintf(w, "%s: FAILED: %s\n    %.2000s\n", driver, t.name, strings.ReplaceAll(o.failed[t], "\n", "\n    "))
			}
		}
		fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped\n", driver, passed, failed, skipped)
	}
	for _, tag := range slices.Sorted(maps.Keys(o.leftOut)) {
		fmt.Fprintf(w, "%d left out: %s\n", o.leftOut[tag], tag)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", len(o.passed), len(o.failed), len(o.skipped))
}

// events prints the lines of go test -json that a count needs.
func (o outcome) events(w io.Writer) {
	lines := json.NewEncoder(w)
	say := func(action string, t test, output string) {
		event := map[string]string{"Action": action, "Package": "upstream/" + t.driver, "Test": strings.ReplaceAll(t.name, "/", "|")}
		if output != "" {
			event["Output"] = output + "\n"
		}
		_ = lines.Encode(event) // standard output: whoever reads it is gone
	}
	for _, t := range o.passed {
		say("pass", t, "")
	}
	for _, t := range sorted(o.failed) {
		say("output", t, o.failed[t])
		say("fail", t, "")
	}
	for _, t := range sorted(o.skipped) {
		say("output", t, o.skipped[t])
		say("skip", t, "")
	}
}

func sorted(tests map[test]string) []test {
	return slices.SortedFunc(maps.Keys(tests), func(a, b test) int {
		return strings.Compare(a.driver+" "+a.name, b.driver+" "+b.name)
	})
}
