// Package bytesize writes sizes for people.
package bytesize

import "fmt"

// Format writes n bytes in the largest binary unit that fits, rounded down to
// one decimal: 1536Mi is 1.5Gi.
func Format(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "Ti"}, {1 << 30, "Gi"}, {1 << 20, "Mi"}, {1 << 10, "Ki"}} {
		if n < u.size {
			continue
		}
		if tenths := n % u.size * 10 / u.size; tenths > 0 {
			return fmt.Sprintf("%d.%d%s", n/u.size, tenths, u.name)
		}
		return fmt.Sprintf("%d%s", n/u.size, u.name)
	}
	return fmt.Sprintf("%d bytes", n)
}
