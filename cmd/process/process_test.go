package process

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

func TestTogether(t *testing.T) {
	fault := errors.New("fault")
	waits := func(ctx context.Context) error { <-ctx.Done(); return nil }
	for _, tc := range []struct {
		name  string
		parts []func(context.Context) error
		want  error
	}{
		{"one fails", []func(context.Context) error{waits, func(context.Context) error { return fault }, waits}, fault},
		{"one ends", []func(context.Context) error{waits, func(context.Context) error { return nil }}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Together(t.Context(), tc.parts...); !errors.Is(err, tc.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestServeHealth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := ServeHealth(t.Context(), address, nil); err == nil {
		t.Fatal("an address that is taken")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ready atomic.Bool
	ended := make(chan error, 1)
	go func() { ended <- ServeHealth(ctx, address, ready.Load) }()
	status := func(path string) int {
		for {
			r, err := http.Get("http://" + address + path)
			if err != nil {
				continue // it is about to listen
			}
			_ = r.Body.Close()
			return r.StatusCode
		}
	}
	if got := status("/healthz"); got != http.StatusOK {
		t.Errorf("healthz: %d", got)
	}
	if got := status("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("readyz before: %d", got)
	}
	ready.Store(true)
	if got := status("/readyz"); got != http.StatusOK {
		t.Errorf("readyz after: %d", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
