package volume

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The parameters of a StorageClass that say how a volume is made, whoever
// reads the class: the CSI service or the provisioner of a cluster.
const (
	ParamProvisioning = "provisioning" // thin (default) or thick
	ParamOnDelete     = "onDelete"     // delete (default) or scrub
	ParamMkfsOptions  = "mkfsOptions"  // arguments of mkfs, separated by spaces
	ParamMode         = "mode"         // permissions of the root directory, octal
	ParamOwner        = "owner"        // of the root directory, uid:gid
)

// The keys of a VolumeAttributesClass.
const (
	AttrInodes    = "inodeLimit"
	AttrSoftLimit = "softLimit"
)

// SpecParams are the parameters that Spec.Set knows.
func SpecParams() []string {
	return []string{ParamProvisioning, ParamOnDelete, ParamMkfsOptions, ParamMode, ParamOwner}
}

// AttributeParams are the keys that Attributes.With knows.
func AttributeParams() []string { return []string{AttrInodes, AttrSoftLimit} }

// Set takes one parameter of a StorageClass into the spec. known is false for
// a key that is not among SpecParams; ErrInvalid for a value that the key does
// not take.
func (s *Spec) Set(key, value string) (known bool, err error) {
	switch key {
	case ParamProvisioning:
		if value != "thick" && value != "thin" {
			return true, fmt.Errorf("%w: parameter %s: %.40q is neither thick nor thin", ErrInvalid, key, value)
		}
		s.Thick = value == "thick"
	case ParamOnDelete:
		if value == "trash" {
			return true, fmt.Errorf("%w: parameter %s: trash is kept by Plinth's controller for claims; a volume that this service deletes is freed at once, so ask for %s or %s", ErrInvalid, key, Delete, Scrub)
		}
		s.OnDelete = OnDelete(value)
		if s.OnDelete != Delete && s.OnDelete != Scrub {
			return true, fmt.Errorf("%w: parameter %s: %.40q is neither %s nor %s", ErrInvalid, key, value, Delete, Scrub)
		}
	case ParamMkfsOptions:
		s.MkfsOptions = nil
		if options := strings.Fields(value); len(options) > 0 {
			s.MkfsOptions = options
		}
	case ParamMode:
		s.Root.Mode, err = parseMode(value)
	case ParamOwner:
		s.Root.UID, s.Root.GID, err = parseOwner(value)
	default:
		return false, nil
	}
	return true, err
}

// maxMode is every bit that means something on a directory: permissions, the
// sticky bit and the group of what is made in it, but not the user.
const maxMode = 0o3777

func parseMode(text string) (uint32, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || len(text) < 3 || len(text) > 5 || mode == 0 || mode > maxMode {
		return 0, fmt.Errorf("%w: parameter %s: %.40q is not the permissions of a directory; write them in octal, such as 0770 or 2775, at most 3777", ErrInvalid, ParamMode, text)
	}
	return uint32(mode), nil
}

// maxID is the largest user or group ID; the one above means "as it is" to
// chown(2).
const maxID = 1<<32 - 2

func parseOwner(text string) (uid, gid uint32, err error) {
	user, group, both := strings.Cut(text, ":")
	u, uErr := strconv.ParseUint(user, 10, 32)
	g, gErr := strconv.ParseUint(group, 10, 32)
	if !both || uErr != nil || gErr != nil || u > maxID || g > maxID {
		return 0, 0, fmt.Errorf("%w: parameter %s: %.40q is not uid:gid in numbers, such as 1000:1000", ErrInvalid, ParamOwner, text)
	}
	return uint32(u), uint32(g), nil
}

// With is the attributes after the parameters of a VolumeAttributesClass; what
// they do not name stays as it is (CSI 1.13, ControllerModifyVolume).
func (a Attributes) With(params map[string]string) (Attributes, error) {
	for _, key := range slices.Sorted(maps.Keys(params)) {
		value := params[key]
		switch key {
		case AttrInodes:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return a, fmt.Errorf("%w: %s %.40q is not a number of inodes; 0 is no limit", ErrInvalid, key, value)
			}
			a.Inodes = n
		case AttrSoftLimit:
			number, isPercent := strings.CutSuffix(value, "%")
			n, err := strconv.Atoi(number)
			if err != nil || !isPercent || n < 0 || n > 99 {
				return a, fmt.Errorf("%w: %s %.40q is not a percentage from 0%% to 99%%; 0%% is no soft limit", ErrInvalid, key, value)
			}
			a.SoftLimit = n
		default:
			if strings.HasPrefix(key, "csi.storage.k8s.io/") {
				continue // it comes from a sidecar
			}
			return a, fmt.Errorf("%w: %.80q cannot be changed; what can are %s", ErrInvalid, key, strings.Join(AttributeParams(), " and "))
		}
	}
	return a, nil
}
