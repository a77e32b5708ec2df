package ledger

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

func TestClusterID(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		want       string
		says       string
	}{
		{"namespace", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":"u-1"}}`, http.StatusOK, "u-1", ""},
		{"forbidden", `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"namespaces is forbidden: user agent cannot get it"}`,
			http.StatusForbidden, "", "user agent cannot get it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if accepts := r.Header.Get("Accept"); accepts != onlyMeta {
					t.Errorf("the whole object is asked for: %s", accepts)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			client, err := NewClient(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			got, err := client.ClusterID(t.Context())
			if got != c.want || (c.says == "") != (err == nil) {
				t.Fatalf("got %q, %v", got, err)
			}
			if c.says != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("the error hides what the server said: %v", err)
			}
		})
	}
}
