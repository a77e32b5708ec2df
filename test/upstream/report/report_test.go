package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const list = `
# a comment
a b: it cannot
a b (on some machines): it cannot here
left out: [Disruptive]
`

// of is a test of a driver.
func of(driver, name, state, message string) spec {
	s := spec{ContainerHierarchyTexts: []string{"External Storage [Driver: csi.example.com] on " + driver, ""}, LeafNodeType: "It", LeafNodeText: name, State: state}
	s.Failure.Message = message
	return s
}

func TestJudge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(path, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	good, used := of("a", "good", "passed", ""), of("a", "unable", "skipped", "it cannot")
	left := of("a", "breaks [Disruptive]", "skipped", "")
	for _, c := range []struct {
		name  string
		specs []spec
		whole bool
		want  string // the last line, and the failure if there is one
	}{
		{"all well", []spec{good, used, left}, true, "1 passed, 0 failed, 1 skipped"},
		{"nothing passed", []spec{used, left}, true, "0 passed, 1 failed, 1 skipped nothing passed"},
		{"skipped on some machines", []spec{good, used, left, of("b", "here", "skipped", "it cannot here")}, true, "1 passed, 0 failed, 2 skipped"},
		{"failed", []spec{good, used, left, of("a", "bad", "failed", "no")}, true, "1 passed, 1 failed, 1 skipped failed: no"},
		{"timed out", []spec{good, used, left, of("a", "bad", "timedout", "slow")}, true, "1 passed, 1 failed, 1 skipped timedout: slow"},
		{"skipped by the wrong driver", []spec{good, used, left, of("c", "unable", "skipped", "it cannot")}, true, "1 passed, 1 failed, 1 skipped no known reason"},
		{"skipped for less than a reason", []spec{good, used, left, of("a", "unable too", "skipped", "it cannot either")}, true, "1 passed, 1 failed, 1 skipped no known reason"},
		{"left out", []spec{good, used, left, of("a", "other", "skipped", "")}, true, "1 passed, 1 failed, 1 skipped left out for no known reason"},
		{"not chosen", []spec{good, of("a", "other", "skipped", "")}, false, "1 passed, 0 failed, 0 skipped"},
		{"a reason that nothing needs", []spec{good, left}, true, "1 passed, 1 failed, 0 skipped no test is skipped for it"},
		{"other tests of Kubernetes", []spec{good, used, left, {LeafNodeType: "It", LeafNodeText: "some", State: "skipped"}}, true, "1 passed, 0 failed, 1 skipped"},
		{"what comes before tests", []spec{good, used, left, {LeafNodeType: "SynchronizedBeforeSuite", State: "failed"}}, true, "1 passed, 1 failed, 1 skipped SynchronizedBeforeSuite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			known, err := readReasons(path)
			if err != nil {
				t.Fatal(err)
			}
			o := judge([]suite{{SuiteSucceeded: true, SpecReports: c.specs}}, known, c.whole)
			var out strings.Builder
			o.print(&out)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			last := lines[len(lines)-1]
			want, why, _ := strings.Cut(c.want, " skipped")
			if last != want+" skipped" || !strings.Contains(out.String(), strings.TrimSpace(why)) || o.ok() != strings.Contains(want, " 0 failed") {
				t.Errorf("%v:\n%s\nwant %s", o.ok(), &out, c.want)
			}
			var events strings.Builder
			o.events(&events)
			if failures := strings.Count(events.String(), `"Action":"fail"`); (failures == 0) != o.ok() {
				t.Errorf("%d failures in\n%s", failures, &events)
			}
		})
	}
	interrupted := judge([]suite{{SpecialSuiteFailureReasons: []string{"Interrupted by User"}, SpecReports: []spec{good}}}, nil, false)
	if interrupted.ok() {
		t.Error("an interrupted suite is well")
	}
	o := judge([]suite{{SuiteSucceeded: true, SpecReports: []spec{good}}}, nil, false)
	if o.require([]test{{"a", "good"}}); !o.ok() {
		t.Errorf("what ran did not: %v", o.failed)
	}
	if o.require([]test{{"b", "good"}}); o.ok() {
		t.Error("what did not run is well")
	}
	if _, err := readReasons(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a list that is not there can be read")
	}
}
