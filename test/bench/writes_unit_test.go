package bench

import (
	"strings"
	"testing"
)

func TestReadWrites(t *testing.T) {
	w, err := readWrites(strings.NewReader(`# HELP apiserver_request_total Counter
apiserver_request_total{code="201",component="apiserver",resource="persistentvolumes",subresource="",verb="POST"} 500
apiserver_request_total{code="409",component="apiserver",resource="persistentvolumes",subresource="",verb="POST"} 1
apiserver_request_total{code="200",component="apiserver",resource="plinthvolumes",subresource="status",verb="PUT"} 1e+03
apiserver_request_total{code="200",component="apiserver",resource="leases",subresource="",verb="PUT"} 77
apiserver_request_total{code="200",component="apiserver",resource="persistentvolumes",subresource="",verb="LIST"} 3
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(w) != 2 || w["POST persistentvolumes"] != 501 || w["PUT plinthvolumes/status"] != 1000 {
		t.Errorf("%v", w)
	}
	if got := w.since(writes{"POST persistentvolumes": 1}, 500).sum(); got != 3 {
		t.Errorf("for each claim: %g", got)
	}
}
