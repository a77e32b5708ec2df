package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// figuresEnv is the file that figures are written to, one JSON object a line.
const figuresEnv = "PLINTH_BENCH_FIGURES"

// figure is one thing that was measured.
type figure struct {
	Name     string
	Measured string  // for people, with its unit
	Value    float64 // what is judged
	// Most and Least bound the value; without both it is told and not judged.
	Most, Least *float64
	Unit        string // of the bounds
}

// atMost and atLeast judge a figure; unit is that of the bound.
func (f figure) atMost(bound float64, unit string) figure {
	f.Most, f.Unit = &bound, unit
	return f
}

func (f figure) atLeast(bound float64, unit string) figure {
	f.Least, f.Unit = &bound, unit
	return f
}

func (f figure) held() bool {
	return (f.Most == nil || f.Value <= *f.Most) && (f.Least == nil || f.Value >= *f.Least)
}

func (f figure) wanted() string {
	switch {
	case f.Most != nil:
		return fmt.Sprintf("≤ %g%s", *f.Most, f.Unit)
	case f.Least != nil:
		return fmt.Sprintf("≥ %g%s", *f.Least, f.Unit)
	}
	return ""
}

func (f figure) verdict() string {
	switch {
	case f.Most == nil && f.Least == nil:
		return ""
	case f.held():
		return "ok"
	}
	return "NOT HELD"
}

// write adds the figure to the file of this run.
func (f figure) write() error {
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(os.Getenv(figuresEnv), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = out.Write(append(line, '\n'))
	return err
}

func readFigures(from io.Reader) ([]figure, error) {
	var out []figure
	s := bufio.NewScanner(from)
	for s.Scan() {
		var f figure
		if err := json.Unmarshal(s.Bytes(), &f); err != nil {
			return nil, fmt.Errorf("%w: %s", err, s.Text())
		}
		out = append(out, f)
	}
	return out, s.Err()
}

// printTable writes the table.
func printTable(to io.Writer, figures []figure) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tmeasured\twanted\t")
	for _, f := range figures {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Name, f.Measured, f.wanted(), f.verdict())
	}
	return w.Flush()
}

// quantile is the value below which that share of the values is, the median
// for 0.5.
func quantile[T int64 | float64](values []T, share float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// ratios divides the rounds of one side by those of the other.
func ratios(of, by []float64) []float64 {
	out := make([]float64, min(len(of), len(by)))
	for i := range out {
		out[i] = of[i] / by[i]
	}
	return out
}

// spread says how far the rounds are apart: of five or more the true median is
// between them, most likely.
func spread(rounds []float64) string {
	return fmt.Sprintf("rounds %.2f to %.2f", slices.Min(rounds), slices.Max(rounds))
}
