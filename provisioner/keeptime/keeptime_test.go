package keeptime

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1d12h30m": 36*time.Hour + 30*time.Minute,
		"1s": time.Second, "90s": 90 * time.Second, "3650d": Max,
		"": 0, "7": 0, "0s": 0, "500ms": 0, "-1h": 0, "1d-1h": 0, "-1d": 0, "3651d": 0, "70000d": 0, "99999999d": 0,
		"1w": 0, "d": 0, "1.5d": 0, "1h2d": 0, "12h1d": 0,
	} {
		if got, err := Parse(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}
