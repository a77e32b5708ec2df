package bench

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// writeVerbs are the verbs of apiserver_request_total that change something.
var writeVerbs = map[string]bool{"POST": true, "PUT": true, "PATCH": true, "APPLY": true, "DELETE": true, "DELETECOLLECTION": true}

// notCounted are the resources that are written whether there are claims or
// not, and events, which are sent behind the work and may be dropped.
var notCounted = map[string]bool{"events": true, "leases": true, "nodes": true, "pods": true, "tokenreviews": true, "subjectaccessreviews": true, "serviceaccounts": true, "configmaps": true}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// writes are how often each kind of object has been written, by "VERB resource".
type writes map[string]float64

// readWrites reads an API server's /metrics.
func readWrites(metrics io.Reader) (writes, error) {
	out := writes{}
	s := bufio.NewScanner(metrics)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, ok := strings.Cut(rest, "} ")
		if !ok {
			continue
		}
		of := map[string]string{}
		for _, m := range label.FindAllStringSubmatch(labels, -1) {
			of[m[1]] = m[2]
		}
		if !writeVerbs[of["verb"]] || notCounted[of["resource"]] {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, err
		}
		name := of["verb"] + " " + of["resource"]
		if sub := of["subresource"]; sub != "" {
			name += "/" + sub
		}
		out[name] += n
	}
	return out, s.Err()
}

// since is what has been written since before, for each of n claims.
func (w writes) since(before writes, n int) writes {
	out := writes{}
	for name, count := range w {
		if d := count - before[name]; d > 0 {
			out[name] = d / float64(n)
		}
	}
	return out
}

func (w writes) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(w)) {
		out = append(out, fmt.Sprintf("%.2f %s", w[name], name))
	}
	return strings.Join(out, ", ")
}

func (w writes) sum() float64 {
	var sum float64
	for _, n := range w {
		sum += n
	}
	return sum
}
