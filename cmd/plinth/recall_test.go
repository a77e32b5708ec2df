package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// apiServer answers what a node asks at its start; a nil body is an outage.
func apiServer(t *testing.T, answers map[string]any) *ledger.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		switch {
		case body == nil && ok:
			w.WriteHeader(http.StatusServiceUnavailable)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		default:
			_ = json.NewEncoder(w).Encode(body)
		}
	}))
	t.Cleanup(s.Close)
	c, err := ledger.NewClient(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRecall(t *testing.T) {
	const cluster, node = "/api/v1/namespaces/kube-system", "/apis/plinth.dev/v1alpha1/plinthnodes/n1"
	namespace := map[string]any{"metadata": map[string]any{"uid": "c1"}}
	reported := map[string]any{
		"kind": "PlinthNode", "apiVersion": "plinth.dev/v1alpha1", "metadata": map[string]any{"name": "n1"},
		"status": map[string]any{"pools": []any{map[string]any{"name": "a", "uuid": "u1", "state": "Ready"}, map[string]any{"name": "b", "state": "Unavailable"}}},
	}
	for _, tc := range []struct {
		name    string
		answers map[string]any
		memory  *identity
		want    identity
		waits   bool
	}{
		{name: "as reported", answers: map[string]any{cluster: namespace, node: reported}, want: identity{"c1", map[string]string{"a": "u1"}}},
		{name: "the API server's word counts", answers: map[string]any{cluster: namespace}, memory: &identity{"c1", map[string]string{"a": "u0"}}, want: identity{"c1", nil}},
		{name: "away, as remembered", answers: map[string]any{cluster: nil}, memory: &identity{"c1", map[string]string{"a": "u0"}}, want: identity{"c1", map[string]string{"a": "u0"}}},
		{name: "half away, as remembered", answers: map[string]any{cluster: namespace, node: nil}, memory: &identity{"c1", map[string]string{"a": "u0"}}, want: identity{"c1", map[string]string{"a": "u0"}}},
		{name: "away at the first start", answers: map[string]any{cluster: nil}, waits: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.memory != nil {
				if err := writeIdentity(dir, *tc.memory); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := slog.New(slog.NewTextHandler(writer(func() {
				if tc.waits {
					cancel() // it has asked, and would ask again
				}
			}), nil))
			got, err := recall(ctx, dir, "n1", apiServer(t, tc.answers), asked)
			if tc.waits {
				if err == nil {
					t.Errorf("it went on with %+v", got)
				}
				return
			}
			if err != nil || got.ClusterID != tc.want.ClusterID || !maps.Equal(got.Pools, tc.want.Pools) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// writer calls a function at each write.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }
