package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFigures: what is written is read again, and a bound is judged as it says.
func TestFigures(t *testing.T) {
	t.Setenv(figuresEnv, filepath.Join(t.TempDir(), "figures"))
	for _, f := range []figure{
		figure{Name: "fast", Measured: "1.30", Value: 1.3}.atMost(1.3, ""),
		figure{Name: "large", Measured: "31 MiB", Value: 31}.atMost(30, " MiB"),
		figure{Name: "slow", Measured: "0.89", Value: 0.89}.atLeast(0.9, ""),
		{Name: "told", Measured: "7", Value: 7},
	} {
		if err := f.write(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(os.Getenv(figuresEnv))
	if err != nil {
		t.Fatal(err)
	}
	figures, err := readFigures(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := printTable(&table, figures); err != nil {
		t.Fatal(err)
	}
	want := []string{"figure measured wanted", "fast 1.30 ≤ 1.3 ok", "large 31 MiB ≤ 30 MiB NOT HELD", "slow 0.89 ≥ 0.9 NOT HELD", "told 7"}
	for i, line := range strings.Split(strings.TrimSpace(table.String()), "\n") {
		if got := strings.Join(strings.Fields(line), " "); i >= len(want) || got != want[i] {
			t.Errorf("line %d: %q", i, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for share, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, share); got != want {
			t.Errorf("quantile %g of %v: %g", share, values, got)
		}
	}
	if quantile[float64](nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}
