package keeptime

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "3650d": Max,
		"": 0, "0s": 0, "7": 0, "d": 0, "-1h": 0, "1d-1h": 0, "3651d": 0, "70000d": 0, "12h1d": 0,
	} {
		if got, err := Parse(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}
