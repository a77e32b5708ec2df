//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
)

// TestHeld prints what the other tests have measured and judges it.
func TestHeld(t *testing.T) {
	file, err := os.Open(os.Getenv(figuresEnv))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	figures, err := readFigures(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(figures) == 0 {
		t.Fatal("nothing was measured")
	}
	if err := printTable(os.Stdout, figures); err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		if !f.held() {
			t.Errorf("not held: %s: %s, wanted %s", f.Name, f.Measured, f.wanted())
		}
	}
}

// run is one part: a test that measures until it is done or told to end.
type run struct {
	*testing.T
	ctx context.Context
}

// newRun ends with the test, or earlier by a signal: what it started is then
// ended by the test's cleanups.
func newRun(t *testing.T) *run {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT, syscall.SIGTERM)
	t.Cleanup(stop)
	return &run{T: t, ctx: ctx}
}

// must ends the test on an error, saying what was being done.
func (r *run) must(err error, doing string) {
	r.Helper()
	if err != nil {
		r.Fatalf("%s: %v", doing, err)
	}
}

// tell writes a figure down, and shows it at once.
func (r *run) tell(f figure) {
	r.Helper()
	r.must(f.write(), "write a figure down")
	r.Logf("%s: %s %s", f.Name, f.Measured, f.verdict())
}

// number is a setting of the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatal(fmt.Errorf("%s=%s is no number of something", name, text))
	}
	return n
}
