//go:build e2e

package e2e

import (
	"fmt"
	"testing"
)

// TestBurst: many claims at once are all bound, and after all are deleted
// nothing of them is left anywhere.
func TestBurst(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const each = 10
	var made []string
	for _, k := range variants {
		class := e.class(params{"pool": e.pool(k.backend), "volumeType": k.volumeType})
		for i := range each {
			name := fmt.Sprintf("c-%d-%d", len(made), i)
			made = append(made, name)
			e.claim(name, class, "16Mi")
		}
	}
	volumes := make([]placed, len(made))
	for i, name := range made {
		volumes[i] = e.volumeOf(name)
	}
	for _, name := range made {
		e.remove(claims, name)
	}
	for _, v := range volumes {
		e.awaitFreed(v)
	}
}
