package plugin

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// Output is how objects are printed.
type Output string

// The kinds of output.
const (
	Table Output = "" // for people
	JSON  Output = "json"
	YAML  Output = "yaml"
)

// Check answers for a kind of output that there is not.
func (o Output) Check() error {
	switch o {
	case Table, JSON, YAML:
		return nil
	}
	return refuse("there is no output %q; -o takes json or yaml, and without it there is a table", string(o))
}

// print writes a value in JSON or YAML.
func (p *Plugin) print(o Output, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil && o == YAML {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Out, strings.TrimRight(string(text), "\n"))
	return err
}

// items is a list as kubectl prints one.
type items[T any] struct {
	metav1.TypeMeta `json:",inline"`
	Items           []T `json:"items"`
}

func listOf[T any](objects []T) items[T] {
	return items[T]{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"}, Items: objects}
}

// table writes rows below a head. An empty cell is <none>, as with kubectl.
func (p *Plugin) table(head string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(p.Err, "No resources found")
		return err
	}
	w := tabwriter.NewWriter(p.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(head, " ", "\t"))
	for _, r := range rows {
		for i := range r[:len(r)-1] {
			if r[i] == "" {
				r[i] = "<none>"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// age is how old something is, as kubectl says it.
func (p *Plugin) age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(p.Now().Sub(t.Time))
}
