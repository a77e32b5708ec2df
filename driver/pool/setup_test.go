package pool

import (
	"fmt"
	"sync"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestSetUpByAll: nodes that start at the same time over a fresh shared disk
// agree on what pool it is.
func TestSetUpByAll(t *testing.T) {
	const nodes, rounds = 8, 20
	for range rounds {
		dir := t.TempDir()
		var all [nodes]volume.PoolStatus
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				o := testOptions(dir)
				o.Node = fmt.Sprint("node-", i)
				o.Config.Pools[0].Shared = true
				m, err := Open(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				defer m.Close()
				all[i] = m.Pools(t.Context())[0]
			})
		}
		wg.Wait()
		for i, st := range all {
			if st.State != volume.PoolReady || st.UUID != all[0].UUID {
				t.Fatalf("node %d: %s %s: %s; node 0 has %s", i, st.State, st.UUID, st.Message, all[0].UUID)
			}
		}
	}
}
