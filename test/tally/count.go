package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// id names a test, or with an empty test a package as a whole.
type id struct{ pkg, test string }

func (t id) String() string { return strings.TrimSuffix(t.pkg+" "+t.test, " ") }

// tests are the outcomes of one step's tests.
type tests struct {
	outcome map[id]string   // pass, fail or skip
	output  map[id][]string // the lines of tests that have not ended well
}

func newTests() tests { return tests{outcome: map[id]string{}, output: map[id][]string{}} }

// add takes one line; what a person would have seen of it goes to log.
func (t *tests) add(line []byte, log io.Writer) {
	var e event
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(log, "%s", line)
		return
	}
	k := id{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		fmt.Fprint(log, e.Output)
		if e.Action == "output" {
			t.output[k] = append(t.output[k], e.Output)
		}
	case "pass":
		delete(t.output, k)
		t.outcome[k] = e.Action
	case "fail", "skip":
		t.outcome[k] = e.Action
	case "run":
		t.outcome[k] = "fail" // unless it says otherwise: a test that never ends has failed
	}
}

// leaves are the tests that are counted: those without subtests, and a parent
// or package that failed while nothing below it did.
func (t *tests) leaves() map[id]string {
	parents := map[id]bool{}
	failedBelow := map[id]bool{}
	for k, outcome := range t.outcome {
		for at := k; at.test != ""; {
			at.test = at.test[:max(0, strings.LastIndexByte(at.test, '/'))]
			parents[at] = true
			failedBelow[at] = failedBelow[at] || outcome == "fail"
		}
	}
	leaves := map[id]string{}
	for k, outcome := range t.outcome {
		whole := k.test == "" || parents[k]
		if !whole || outcome == "fail" && !failedBelow[k] {
			leaves[k] = outcome
		}
	}
	return leaves
}

// total counts a step by its tests, or those of them that are counted here. A
// step that is no set of tests is one test; one that failed without a failed
// test is one failed test.
func (res result) total(counted tests) (passed, failed, skipped int) {
	for _, outcome := range counted.leaves() {
		switch outcome {
		case "pass":
			passed++
		case "fail":
			failed++
		case "skip":
			skipped++
		}
	}
	switch {
	case res.silent():
		failed++
	case !res.gotest && !res.prepares:
		passed++
	}
	return passed, failed, skipped
}

// silent says that the step failed and no test of it says why.
func (res result) silent() bool {
	for _, outcome := range res.counts.outcome {
		if outcome == "fail" {
			return false
		}
	}
	return res.err != nil
}
