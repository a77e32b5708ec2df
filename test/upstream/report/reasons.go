package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// leftOut is what stands in place of drivers before a tag whose tests are not
// run at all.
const leftOut = "left out"

// reason is a line of the list of reasons, DRIVERS: TEXT, or
// DRIVERS (CONDITION): TEXT for one that may not be needed.
type reason struct {
	drivers []string // or leftOut
	text    string   // all of what the test says when it is skipped, or a tag
	line    int
	needed  bool
}

// readReasons reads the list of reasons.
func readReasons(path string) ([]*reason, error) {
	var known []*reason
	err := eachLine(path, func(n int, before, after string) {
		before, _, conditional := strings.Cut(before, " (")
		r := &reason{drivers: strings.Fields(before), text: after, line: n, needed: conditional}
		if before == leftOut {
			r.drivers = []string{leftOut}
		}
		known = append(known, r)
	})
	return known, err
}

// readSubset reads a list of tests, DRIVER: NAME.
func readSubset(path string) ([]test, error) {
	var tests []test
	err := eachLine(path, func(_ int, before, after string) { tests = append(tests, test{before, after}) })
	return tests, err
}

// eachLine calls do for each line BEFORE: AFTER of a file, but for those that
// are empty or comments.
func eachLine(path string, do func(n int, before, after string)) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(raw), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		before, after, found := strings.Cut(line, ": ")
		if !found {
			return fmt.Errorf("%s:%d: there is no \": \" in it", path, i+1)
		}
		do(i+1, before, after)
	}
	return nil
}

// find looks for the reason why a test of a driver skipped itself.
func find(known []*reason, driver, message string) bool {
	for _, r := range known {
		if r.text == message && slices.Contains(r.drivers, driver) {
			r.needed = true
			return true
		}
	}
	return false
}

// findTag looks for the reason why a test was not run at all, and returns the
// tag.
func findTag(known []*reason, name string) (string, bool) {
	for _, r := range known {
		if r.drivers[0] == leftOut && strings.Contains(name, r.text) {
			r.needed = true
			return r.text, true
		}
	}
	return "", false
}
