package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	lanes     = 2
	heartbeat = time.Minute
	grace     = 30 * time.Second // between asking a step to end and killing it
)

// runner runs steps and keeps their results. Only run's own goroutine touches
// results.
type runner struct {
	root, logs string
	out        io.Writer
	began      time.Time
	results    []result
}

// result is how one step ended.
type result struct {
	step
	err    error // why it did not succeed
	counts tests
	took   time.Duration
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%7s  %s\n", time.Since(r.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// run runs all steps, at most as many at a time as there are lanes.
func (r *runner) run(ctx context.Context, waiting []step) {
	ended := make(chan result)
	var running []string
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for len(waiting) > 0 || len(running) > 0 {
		for i := 0; i < len(waiting) && len(running) < lanes; {
			s := waiting[i]
			if err := r.hopeless(ctx, s); err != nil {
				r.end(result{step: s, err: err})
			} else if r.free(s) {
				running = append(running, s.name)
				r.say("%s: begun", s.name)
				go func() { ended <- r.one(ctx, s) }()
			} else {
				i++
				continue
			}
			waiting = slices.Delete(waiting, i, i+1)
			i = 0 // what failed may free others
		}
		if len(running) == 0 {
			continue
		}
		select {
		case res := <-ended:
			running = slices.DeleteFunc(running, func(name string) bool { return name == res.name })
			r.end(res)
		case <-beat.C:
			r.say("running: %s", strings.Join(running, ", "))
		}
	}
}

// hopeless says why a step will never run.
func (r *runner) hopeless(ctx context.Context, s step) error {
	if s.always {
		return nil
	}
	if ctx.Err() != nil {
		return errors.New("not run: interrupted")
	}
	for _, res := range r.results {
		if res.err != nil && slices.Contains(s.needs, res.name) {
			return fmt.Errorf("not run: it needs %s, which failed", res.name)
		}
	}
	return nil
}

// free says whether all that a step waits for has ended.
func (r *runner) free(s step) bool {
	for _, name := range slices.Concat(s.needs, s.after) {
		if !slices.ContainsFunc(r.results, func(res result) bool { return res.name == name }) {
			return false
		}
	}
	return true
}

func (r *runner) end(res result) {
	r.results = append(r.results, res)
	passed, failed, skipped := res.total(res.counts)
	how := "done"
	if res.gotest {
		how = fmt.Sprintf("%d passed, %d failed, %d skipped", passed, failed, skipped)
	}
	if res.err != nil {
		how = fmt.Sprintf("FAILED: %v: %s", res.err, how)
	}
	r.say("%s: %s (%s)", res.name, how, res.took.Round(time.Second))
}

// one runs one step to its end, writing all that it prints to its log.
func (r *runner) one(ctx context.Context, s step) result {
	began := time.Now()
	res := result{step: s, counts: newTests()}
	res.err = r.command(ctx, s, &res.counts)
	res.took = time.Since(began)
	return res
}

func (r *runner) command(ctx context.Context, s step, counts *tests) error {
	log, err := os.Create(r.log(s))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // a log that is cut short is better than a run that fails for it
	if s.always {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.root, s.argv[0]), s.argv[1:]...)
	cmd.Dir = r.root
	cmd.Stdout, cmd.Stderr = log, log
	if s.gotest {
		cmd.Stdout = &lines{do: func(line []byte) { counts.add(line, log) }}
	}
	// A group of its own, so that nothing of the step outlives it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err = cmd.Run()
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left, if anything
		return fmt.Errorf("%w after %v", ctx.Err(), s.limit)
	}
	return err
}

func (r *runner) log(s step) string { return filepath.Join(r.logs, s.name+".log") }

// lines calls do for each whole line written to it. A line of go test -json
// has its newline, so none is held back for ever.
type lines struct {
	do   func([]byte)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.do(l.rest[:i+1])
		l.rest = l.rest[i+1:]
	}
}
