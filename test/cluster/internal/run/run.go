// Package run executes commands, and makes their failures readable.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Error is a command that did not succeed: what was run, how it ended, and what it said.
type Error struct {
	Argv   []string
	Exit   int // -1 when the command was not started or was ended by a signal
	Output string
	Err    error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Err)
	if out := strings.TrimSpace(e.Output); out != "" {
		text += "\n" + out
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Command is one call of a program.
type Command struct {
	Argv   []string
	Dir    string    // working directory; empty: the caller's
	Env    []string  // added to the caller's environment
	Stdin  io.Reader // nil: nothing to read
	Stdout io.Writer // where stdout goes as it comes; nil: Run returns it
}

// Run executes c and returns what it wrote to stdout. The error is an *Error
// that holds stdout and stderr, but no stdout that went elsewhere.
func (c Command) Run(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin = c.Stdin
	var stdout, all bytes.Buffer
	cmd.Stdout = c.Stdout
	if c.Stdout == nil {
		cmd.Stdout = io.MultiWriter(&stdout, &all)
	}
	cmd.Stderr = &all
	if err := cmd.Run(); err != nil {
		exit := -1
		if ee, ok := errors.AsType[*exec.ExitError](err); ok {
			exit = ee.ExitCode()
		}
		return stdout.Bytes(), &Error{Argv: c.Argv, Exit: exit, Output: all.String(), Err: err}
	}
	return stdout.Bytes(), nil
}

// Output executes argv and returns what it wrote to stdout.
func Output(ctx context.Context, argv ...string) ([]byte, error) {
	return Command{Argv: argv}.Run(ctx)
}
