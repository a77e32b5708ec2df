package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/pki"
)

// Client speaks to the API server as its administrator, in JSON.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client for the API server at the port of the host's loopback.
func NewClient(a *Authorities, port int) (*Client, error) {
	p, err := a.CA.Issue(Admin)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CA.Cert)
	return &Client{
		base: fmt.Sprintf("https://127.0.0.1:%d", port),
		http: &http.Client{
			Timeout: 30 * time.Second,
			Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
				MaxIdleConnsPerHost: 8,
			},
		},
	}, nil
}

// Admin is who the host's kubeconfig is for.
var Admin = pki.Request{User: "admin", Groups: []string{"system:masters"}}

// StatusError is an answer of the API server that is not a success.
type StatusError struct {
	Method, Path string
	Code         int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: HTTP %d: %s", e.Method, e.Path, e.Code, e.Body)
}

// IsNotFound says whether err is the API server's answer that there is no such thing.
func IsNotFound(err error) bool {
	s, ok := errors.AsType[*StatusError](err)
	return ok && s.Code == http.StatusNotFound
}

// Get decodes what is at path into out; nil: only see whether it succeeds.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	raw, err := c.do(ctx, http.MethodGet, path, "", nil)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// Apply makes the object at path be as given (server-side apply); it may be so already.
func (c *Client) Apply(ctx context.Context, path string, what any) error {
	raw, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPatch, path+"?fieldManager=test-cluster&force=true", "application/apply-patch+yaml", raw)
	return err
}

// Patch changes parts of the object at path (strategic merge).
func (c *Client) Patch(ctx context.Context, path string, what any) error {
	raw, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPatch, path, "application/strategic-merge-patch+json", raw)
	return err
}

// Delete removes what is at path. Absence is nil.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, http.MethodDelete, path, "", nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, &StatusError{Method: method, Path: path, Code: answer.StatusCode, Body: string(raw)}
	}
	return raw, nil
}

// Until calls try again and again, every 50 ms, until it succeeds or ctx ends;
// then the last error tells why.
func Until(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
