package run

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	out, err := Exec{}.Run(t.Context(), "echo", "$HOME; true", "*")
	if err != nil || string(out) != "$HOME; true *\n" {
		t.Fatalf("%q, %v: a shell saw the arguments?", out, err)
	}
}

func TestErrors(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		argv   []string
		code   int
		output string
		is     error
	}{
		{"exit code", t.Context(), []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, 3, "out\nerr\n", nil},
		{"no such command", t.Context(), []string{"plinth-no-such-command"}, -1, "", exec.ErrNotFound},
		{"nothing", t.Context(), nil, -1, "", nil},
		{"context", ended, []string{"cat", "/dev/zero"}, -1, "", context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Exec{}.Run(c.ctx, c.argv...)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is no *Error", err)
			}
			if e.Code != c.code || e.Output != c.output || strings.Join(e.Argv, "|") != strings.Join(c.argv, "|") {
				t.Errorf("%+v", e)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if len(c.argv) > 0 && !strings.Contains(err.Error(), c.argv[0]) {
				t.Errorf("%q does not name the command", err)
			}
		})
	}
}
