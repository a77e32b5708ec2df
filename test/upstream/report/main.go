// Report reads the report of ginkgo (--json-report) about the storage tests of
// Kubernetes and prints what passed, what failed, and what was skipped and why.
// It fails when a test failed, when nothing ran, when a test was skipped for a
// reason that the list does not have, when one that was to run did not, and, of
// a run of all tests, when a line of the list is needed by none.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

func main() {
	asJSON := flag.Bool("json", false, "print as go test -json does")
	list := flag.String("skips", "", "file of the reasons for skips")
	whole := flag.Bool("whole", false, "all tests were to run: what was left out, and lines of the list that nothing needs, count as failures")
	subset := flag.String("subset", "", "file of the tests that had to run")
	flag.Parse()
	ok, err := report(flag.Args(), *list, *subset, *whole, *asJSON)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

func report(paths []string, list, subset string, whole, asJSON bool) (ok bool, err error) {
	known, err := readReasons(list)
	if err != nil {
		return false, err
	}
	var chosen []test
	if subset != "" {
		if chosen, err = readSubset(subset); err != nil {
			return false, err
		}
	}
	var suites []suite
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		var some []suite
		if err := json.Unmarshal(raw, &some); err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		suites = append(suites, some...)
	}
	o := judge(suites, known, whole)
	o.require(chosen)
	if asJSON {
		o.events(os.Stdout)
	} else {
		o.print(os.Stdout)
	}
	return o.ok(), nil
}
