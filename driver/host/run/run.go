// Package run runs commands: one place, no shell, and an error that says
// which command failed, how, and what it said.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Runner runs one command and returns its standard output. argv[0] is looked
// up in PATH; no shell sees the arguments. Every failure is an *Error.
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

// Error is a command that did not succeed.
type Error struct {
	Argv   []string
	Code   int    // exit code; -1 if it did not start or was ended by a signal
	Output string // standard output, then standard error; the last of it
	Err    error  // as os/exec tells it; wraps the context's error if that ended it
}

// outputLimit bounds, in bytes, how much of a command's output an error keeps.
const outputLimit = 4096

func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Err)
	if e.Output != "" {
		msg += ": " + strings.Join(strings.Fields(e.Output), " ")
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// Exec is the Runner that runs real processes, in the C locale and with
// nothing on standard input.
type Exec struct {
	Env []string // the whole environment; nil inherits this process's
}

// killDelay is how long output pipes may stay open after a command was ended.
const killDelay = 2 * time.Second

// Run implements Runner. A context that ends kills the command.
func (x Exec) Run(ctx context.Context, argv ...string) ([]byte, error) {
	if len(argv) == 0 {
		return nil, &Error{Code: -1, Err: errors.New("no command")}
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = killDelay
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if x.Env != nil {
		cmd.Env = append(append([]string(nil), x.Env...), "LC_ALL=C")
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	out := append(bytes.Clone(stdout.Bytes()), stderr.Bytes()...)
	out = out[max(0, len(out)-outputLimit):]
	return stdout.Bytes(), &Error{Argv: argv, Code: cmd.ProcessState.ExitCode(), Output: string(out), Err: err}
}
