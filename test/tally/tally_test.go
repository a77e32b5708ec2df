package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	line := func(action, test string) string {
		return `{"Action":"` + action + `","Package":"p","Test":"` + test + `"}` + "\n"
	}
	whole := func(action string) string { return `{"Action":"` + action + `","Package":"p"}` + "\n" }
	for _, c := range []struct {
		name                    string
		events                  string
		err                     error
		passed, failed, skipped int
	}{
		{"one of each", line("pass", "A") + line("fail", "B") + line("skip", "C") + whole("fail"), errors.New("exit 1"), 1, 1, 1},
		{"subtests count, their parent does not", line("pass", "A/x") + line("pass", "A/y") + line("pass", "A") + whole("pass"), nil, 2, 0, 0},
		{"a parent that fails by itself", line("pass", "A/x") + line("fail", "A") + whole("fail"), errors.New("exit 1"), 1, 1, 0},
		{"a parent that fails for its subtest", line("fail", "A/x") + line("fail", "A") + whole("fail"), errors.New("exit 1"), 0, 1, 0},
		{"a package that does not compile", whole("fail"), errors.New("exit 1"), 0, 1, 0},
		{"a test that never ends", line("run", "A") + line("run", "B") + line("pass", "B"), errors.New("killed"), 1, 1, 0},
		{"a step that cannot run", "sh: not found\n", errors.New("exit 127"), 0, 1, 0},
		{"a package without tests", whole("skip"), nil, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := result{step: step{gotest: true}, err: c.err, counts: newTests()}
			w := &lines{do: func(l []byte) { res.counts.add(l, io.Discard) }}
			for _, r := range c.events { // however it is cut
				if _, err := w.Write([]byte(string(r))); err != nil {
					t.Fatal(err)
				}
			}
			passed, failed, skipped := res.total(res.counts)
			if passed != c.passed || failed != c.failed || skipped != c.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d", passed, failed, skipped, c.passed, c.failed, c.skipped)
			}
		})
	}
}

func TestRun(t *testing.T) {
	echo := func(json string) []string { return []string{"/bin/echo", json} }
	var out strings.Builder
	r := &runner{root: "/", logs: t.TempDir(), out: &out, began: time.Now()}
	r.run(context.Background(), []step{
		{name: "broken", argv: []string{"/bin/false"}, prepares: true, limit: time.Minute},
		{name: "needy", argv: []string{"/bin/true"}, needs: []string{"broken"}, limit: time.Minute},
		{name: "check", argv: []string{"/bin/true"}, limit: time.Minute},
		{name: "slow", argv: []string{"/bin/sleep", "600"}, limit: time.Millisecond},
		{name: "bad", gotest: true, limit: time.Minute, argv: []string{"/bin/sh", "-c", `echo '{"Action":"fail","Package":"p","Test":"Bad"}'; false`}},
		{name: "bad again", gotest: true, limit: time.Minute, argv: []string{"/bin/sh", "-c", `echo '{"Action":"fail","Package":"p","Test":"Bad"}'; false`}},
		{name: "user", gotest: true, limit: time.Minute, argv: echo(`{"Action":"skip","Package":"p","Test":"Root"}`)},
		{name: "root", gotest: true, limit: time.Minute, after: []string{"user"}, argv: echo(`{"Action":"pass","Package":"p","Test":"Root"}`)},
		{name: "last", argv: []string{"/bin/true"}, prepares: true, always: true, after: []string{"root", "needy"}, limit: time.Minute},
	})
	if r.report() {
		t.Error("all is well")
	}
	if want := "2 passed, 4 failed, 0 skipped\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("it does not end in %q:\n%s", want, &out)
	}
	for _, want := range []string{"needy: not run: it needs broken", "slow: context deadline exceeded"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
}

// TestGist: the end of what a test said is told, too, and none of it is without end.
func TestGist(t *testing.T) {
	var output []string
	for i := range 100 {
		output = append(output, fmt.Sprintf("line %d\n", i))
	}
	output = append(output, "--- FAIL: TestBad (0.00s)\n", strings.Repeat("x", 1000)+"\n")
	got := gist(output)
	if len(got) != 21 || got[0] != "line 0" || got[8] != "... 81 lines ..." || got[19] != "line 99" || len(got[20]) > 410 {
		t.Errorf("%d lines: %q", len(got), got)
	}
	if got := gist(output[:3]); len(got) != 3 {
		t.Errorf("%q", got)
	}
}
