package provisioner

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/plinth-csi/plinth/driver/volume"
)

// TestDocumentedKeys: the table in docs/storageclass.md lists exactly the keys
// that there are.
func TestDocumentedKeys(t *testing.T) {
	text, err := os.ReadFile("../docs/storageclass.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z0-9./-]+)` \\|(?:[^|]+\\|){4}$").FindAllStringSubmatch(string(text), -1) {
		listed = append(listed, row[1])
	}
	known := append(parameters(), volume.AttributeParams()...)
	known = append(known, AnnotationAdopt, AnnotationAdopters, "size") // the last is of volumes in pods (driver/parameters.go)
	slices.Sort(listed)
	slices.Sort(known)
	if !slices.Equal(listed, known) {
		t.Errorf("docs/storageclass.md lists\n%q, known are\n%q", listed, known)
	}
}
