package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The node agent stays small because it carries no typed client of Kubernetes
// (docs/design.md): that would double what is resident on every node.
func TestNoTypedClient(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, heavy := range []string{"k8s.io/api/core/v1", "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers"} {
		for dep := range strings.Lines(string(out)) {
			if strings.TrimSpace(dep) == heavy {
				t.Errorf("plinth depends on %s; that belongs in plinth-controller", heavy)
			}
		}
	}
}
