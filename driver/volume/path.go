package volume

import (
	"fmt"
	"strings"
)

// Path is a readable path of a volume below its pool, such as shop/data-db-0.
// Values come from ParsePath only: each segment begins with a letter or a
// digit, so none is empty, hidden, "." or "..", and the whole can neither
// climb nor be absolute. The zero value is no path.
type Path string

// The bounds of a path. NAME_MAX of every filesystem in question is 255 bytes.
const (
	maxPathLength   = 512
	maxPathSegments = 8
	maxPathSegment  = 255
)

// ParsePath returns s as a Path, or ErrInvalid with the rule it breaks.
func ParsePath(s string) (Path, error) {
	segments := strings.Split(s, "/")
	if len(s) > maxPathLength || len(segments) > maxPathSegments {
		return "", fmt.Errorf("%w: path %.80q has %d characters and %d segments; the most are %d and %d",
			ErrInvalid, s, len(s), len(segments), maxPathLength, maxPathSegments)
	}
	for _, segment := range segments {
		if !isSegment(segment) {
			return "", fmt.Errorf("%w: path %.80q has the segment %.80q; a segment has letters, digits, '.', '_' and '-', begins with a letter or a digit, and has at most %d characters",
				ErrInvalid, s, segment, maxPathSegment)
		}
	}
	return Path(s), nil
}

func isSegment(s string) bool {
	if s == "" || len(s) > maxPathSegment {
		return false
	}
	for i, c := range []byte(s) {
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !plain && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// Clashes reports whether two volumes of a pool cannot have these paths: they
// are the same, or one would be within the other.
func (p Path) Clashes(other Path) bool {
	return p == other || strings.HasPrefix(string(p), string(other)+"/") || strings.HasPrefix(string(other), string(p)+"/")
}
