//go:build e2e

package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// TestLimit: a volume cannot hold more than its size.
func TestLimit(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.claim("data", e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}), "64Mi")
			e.pod("writer", "data")
			await(e, pods, "writer", "ready", ready)
			out, err := e.sh("writer", "dd if=/dev/urandom of=/data/big bs=1M count=96 conv=fsync")
			if err == nil {
				t.Errorf("96 MiB went onto a volume of 64 MiB: %s", out)
			} else if !strings.Contains(err.Error(), "No space left on device") && !strings.Contains(err.Error(), "quota exceeded") {
				t.Errorf("writing beyond the size failed in an unexpected way: %v", err)
			}
			// Many small files end at the same wall.
			if out, err := e.sh("writer", "rm /data/big; sync; i=0; while [ $i -lt 96 ]; do dd if=/dev/urandom of=/data/$i bs=1M count=1 conv=fsync 2>/dev/null || exit 1; i=$((i+1)); done"); err == nil {
				t.Errorf("96 files of 1 MiB went onto a volume of 64 MiB: %s", out)
			}
			used, err := strconv.ParseInt(strings.Fields(e.mustSh("writer", "sync; du -s /data"))[0], 10, 64)
			e.must(err, "read what du prints")
			if used <<= 10; used > size {
				t.Errorf("the volume of %d bytes holds %d", int64(size), used)
			}
			if used < size/2 {
				t.Errorf("the volume of %d bytes was full with %d", int64(size), used)
			}
			// A full volume can be emptied and used again.
			e.mustSh("writer", "rm -rf /data/*; sync; dd if=/dev/urandom of=/data/again bs=1M count=16 conv=fsync")
		})
	}
}
