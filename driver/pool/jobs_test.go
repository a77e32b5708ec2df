package pool

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestJobs: one job for a key, which outlives who asked; its error is told
// once; closing ends all.
func TestJobs(t *testing.T) {
	j := newJobs(slog.New(slog.DiscardHandler))
	defer j.close()
	release, failed := make(chan struct{}), errors.New("failed")
	first, err := j.start("a", func(ctx context.Context, w *job) error {
		if err := errors.Join(w.progress(ctx, 0), w.progress(ctx, 7)); err != nil {
			return err
		}
		<-release
		return failed
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.start("a", nil); !errors.Is(err, volume.ErrBusy) || j.find("a") != first {
		t.Errorf("the key has a second job: %v", err)
	}
	<-first.began
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := first.wait(impatient, 10); !errors.Is(err, volume.ErrBusy) {
		t.Errorf("while it goes on: %v", err)
	}
	close(release)
	<-first.done
	if w := j.find("a"); w != first || !errors.Is(w.wait(t.Context(), 10), failed) || w.moved.Load() != 7 {
		t.Error("the failure is not told")
	}
	if j.find("a") != nil {
		t.Error("the failure is told twice")
	}
}

// TestJobsBound: no more than slowJobs are in their slow part, others wait
// there for their turn and can be cancelled while they do.
func TestJobsBound(t *testing.T) {
	j := newJobs(slog.New(slog.DiscardHandler))
	slow := func(ctx context.Context, w *job) error {
		if err := w.progress(ctx, 0); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	var all []*job
	for _, key := range []string{"a", "b", "c"} {
		w, err := j.start(key, slow)
		if err != nil {
			t.Fatal(err)
		}
		<-w.began
		all = append(all, w)
	}
	quick, err := j.start("quick", func(context.Context, *job) error { return nil })
	if err := errors.Join(err, quick.wait(t.Context(), 0)); err != nil {
		t.Errorf("a quick one waits for the slow: %v", err)
	}
	j.cancel("b")
	if !all[1].ended() || j.find("b") != nil {
		t.Error("it was not cancelled")
	}
	j.close()
	for _, w := range all {
		if !errors.Is(w.err, context.Canceled) {
			t.Errorf("after close: %v", w.err)
		}
	}
	if _, err := j.start("late", slow); !errors.Is(err, volume.ErrPoolUnavailable) {
		t.Errorf("a job began after close: %v", err)
	}
}
