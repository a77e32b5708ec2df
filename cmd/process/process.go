// Package process is what the programs of Plinth have in common as processes:
// a log, a health endpoint, a way to the API server, parts that end together.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// DefaultDriver is the name of the CSI driver where a flag does not say.
const DefaultDriver = "csi.plinth.dev"

// NewLog is the log of a process: one JSON object a line on standard error.
func NewLog(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// KubeConfig is how to reach the API server: by a file, or as a pod. agent is
// how this process calls itself there.
func KubeConfig(file, agent string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", file) // "" is the pod's own
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	cfg.UserAgent = agent
	return cfg, nil
}

// What bounds a server: reading a request and ending, and answering.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second
)

// ServeHealth answers GET /healthz while the process lives and GET /readyz
// while ready says so, until the context ends. An empty address serves nothing.
func ServeHealth(ctx context.Context, address string, ready func() bool) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	return Serve(ctx, address, mux)
}

// Serve answers HTTP until the context ends. An empty address serves nothing.
func Serve(ctx context.Context, address string, handler http.Handler) error {
	if address == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	server := &http.Server{Handler: handler, ReadTimeout: readTimeout, WriteTimeout: writeTimeout}
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), readTimeout)
		defer cancel()
		_ = server.Shutdown(last) // the process ends anyway
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", address, err)
	}
	return nil
}

// Together runs parts of a process until the context ends or one of them
// does, which ends them all, and joins their errors.
func Together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	var errs []error
	for range parts {
		errs = append(errs, <-ended)
		cancel()
	}
	return errors.Join(errs...)
}
