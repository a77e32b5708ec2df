// Package volume holds the words that every layer of Plinth shares: what a
// volume is, what it may be asked for, and the ways in which that fails.
// It imports the standard library only.
package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ID names one volume or one snapshot, in records, in objects and on disk.
// It is a DNS label, so it is a legal object name and a single path element
// that can neither be empty nor climb. Values come from ParseID or IDForName
// only; nothing else in a request ever becomes part of a path.
type ID string

// maxIDLength is the length of a DNS label (RFC 1123).
const maxIDLength = 63

// ParseID returns s as an ID, or ErrInvalid with the rule it breaks.
func ParseID(s string) (ID, error) {
	if !isLabel(s) {
		return "", fmt.Errorf("%w: id %.80q is not a DNS label of at most %d characters", ErrInvalid, s, maxIDLength)
	}
	return ID(s), nil
}

// isLabel reports whether s is a DNS label. A listing asks it of every file.
func isLabel(s string) bool {
	if s == "" || len(s) > maxIDLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// IDForName gives the ID under which a requested name is kept: the name
// itself where it is a legal ID (Kubernetes sends pvc-UUID), else a digest of
// it. The same name always has the same ID, which makes creation idempotent
// (CSI 1.13, CreateVolume: the name is the idempotency token).
func IDForName(name string) ID {
	if id, err := ParseID(name); err == nil {
		return id
	}
	sum := sha256.Sum256([]byte(name))
	return ID("v-" + hex.EncodeToString(sum[:20]))
}

// MemberID is the ID, and the name, of the snapshot of a volume in the group
// of a name: both are in it, so it is the same whenever the group is asked for.
func MemberID(group string, of ID) (id ID, name string) {
	name = group + "/" + string(of)
	return IDForName(name), name
}
