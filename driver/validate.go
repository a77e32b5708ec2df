package driver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/volume"
)

// maxString is the length in bytes that CSI allows a string (CSI 1.13, "Size Limits").
const maxString = 128

// defaultSize is the size, in bytes, of a volume whose request names none.
const defaultSize = 1 << 30

func topologyKey(driver string) string { return driver + "/node" }

// checkName checks the name of what is to be made (CSI 1.13, "Size Limits" and
// CreateVolumeRequest.name).
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: name is missing", volume.ErrInvalid)
	case len(name) > maxString:
		return fmt.Errorf("%w: name is longer than %d bytes", volume.ErrInvalid, maxString)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, banned):
		return fmt.Errorf("%w: name %.80q has control characters", volume.ErrInvalid, name)
	}
	return nil
}

// banned are the characters that no name may have: control characters other
// than whitespace (U+0085 is both, and banned).
func banned(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r'
}

func createRequest(driver string, req *csi.CreateVolumeRequest) (volume.Request, error) {
	name := req.GetName()
	if err := checkName(name); err != nil {
		return volume.Request{}, err
	}
	r, err := describeRequest(req.GetVolumeCapabilities(), req.GetParameters())
	if err != nil {
		return volume.Request{}, err
	}
	r.Name, r.ID = name, volume.IDForName(name)
	if r.Attributes, err = r.Attributes.With(req.GetMutableParameters()); err != nil {
		return volume.Request{}, err
	}
	if r.Size, r.LimitBytes, err = createRange(req.GetCapacityRange()); err != nil {
		return volume.Request{}, err
	}
	if t := req.GetAccessibilityRequirements(); t != nil {
		r.Nodes = nodes(driver, append(slices.Clone(t.GetPreferred()), t.GetRequisite()...))
		if len(r.Nodes) == 0 && len(t.GetPreferred())+len(t.GetRequisite()) > 0 {
			return volume.Request{}, fmt.Errorf("%w: no topology in the request has the segment %s", volume.ErrNoCapacity, topologyKey(driver))
		}
	}
	return r, nil
}

func capacityRequest(driver string, req *csi.GetCapacityRequest) (volume.Request, error) {
	r := volume.Request{Spec: volume.Spec{Mode: volume.Filesystem}}
	var err error
	if len(req.GetVolumeCapabilities()) > 0 {
		r, err = describeRequest(req.GetVolumeCapabilities(), req.GetParameters())
	} else {
		err = applyParameters(&r, req.GetParameters())
	}
	if err != nil {
		return volume.Request{}, err
	}
	if t := req.GetAccessibleTopology(); t != nil {
		// A topology without our segment is a place where no volume can be.
		r.Nodes = []string{t.GetSegments()[topologyKey(driver)]}
	}
	return r, nil
}

// describeRequest is what capabilities and parameters say together.
func describeRequest(caps []*csi.VolumeCapability, params map[string]string) (volume.Request, error) {
	all, err := uses(caps)
	if err != nil {
		return volume.Request{}, err
	}
	r := volume.Request{Spec: volume.Spec{Mode: all[0].Mode, FSType: all[0].FSType}}
	for _, u := range all {
		if u.Mode != r.Mode || u.FSType != r.FSType {
			return volume.Request{}, fmt.Errorf("%w: the capabilities ask for different access types or filesystems", volume.ErrInvalid)
		}
		if !slices.Contains(r.AccessModes, u.AccessMode) {
			r.AccessModes = append(r.AccessModes, u.AccessMode)
		}
	}
	return r, applyParameters(&r, params)
}

func applyParameters(r *volume.Request, params map[string]string) error {
	p, err := parseParameters(params)
	if err != nil {
		return err
	}
	r.Pool, r.Labels = p.pool, p.labels
	r.Thick, r.OnDelete, r.MkfsOptions, r.Root = p.spec.Thick, p.spec.OnDelete, p.spec.MkfsOptions, p.spec.Root
	if r.FSType == "" && r.Mode == volume.Filesystem {
		r.FSType = p.fsType
	}
	return nil
}

// uses reads capabilities, of which there must be one at least.
func uses(caps []*csi.VolumeCapability) ([]volume.Use, error) {
	if len(caps) == 0 {
		return nil, fmt.Errorf("%w: volume_capabilities are missing", volume.ErrInvalid)
	}
	out := make([]volume.Use, 0, len(caps))
	for _, c := range caps {
		u, err := parseUse(c)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func parseUse(c *csi.VolumeCapability) (volume.Use, error) {
	var u volume.Use
	switch t := c.GetAccessType().(type) {
	case *csi.VolumeCapability_Block:
		u.Mode = volume.Block
	case *csi.VolumeCapability_Mount:
		if t.Mount.GetVolumeMountGroup() != "" {
			return u, fmt.Errorf("%w: volume_mount_group; the capability VOLUME_MOUNT_GROUP is not announced", volume.ErrUnsupported)
		}
		u.Mode, u.FSType, u.Options = volume.Filesystem, t.Mount.GetFsType(), t.Mount.GetMountFlags()
	default:
		return u, fmt.Errorf("%w: volume_capability has no access type", volume.ErrInvalid)
	}
	switch mode := c.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		u.AccessMode = volume.ReadWriteOnce
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
		u.AccessMode, u.ReadOnly = volume.ReadWriteOnce, true
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
		u.AccessMode = volume.ReadWriteOncePod
	case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
		u.AccessMode, u.ReadOnly = volume.ReadOnlyMany, true
	case csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		u.AccessMode = volume.ReadWriteMany
	case csi.VolumeCapability_AccessMode_UNKNOWN:
		return u, fmt.Errorf("%w: volume_capability has no access mode", volume.ErrInvalid)
	default:
		return u, fmt.Errorf("%w: access mode %s; one writer among many nodes cannot be enforced, ask for a single-node mode or for MULTI_NODE_MULTI_WRITER on a shared pool", volume.ErrUnsupported, mode)
	}
	return u, nil
}

// compatible says whether a volume can be used in that way.
func compatible(v volume.Volume, u volume.Use) error {
	switch {
	case v.Mode != u.Mode:
		return fmt.Errorf("%w: volume %s is a %s volume, not %s", volume.ErrInvalid, v.ID, v.Mode, u.Mode)
	case u.FSType != "" && u.FSType != v.FSType:
		return fmt.Errorf("%w: volume %s has %s, not the filesystem %.20q", volume.ErrInvalid, v.ID, cmp.Or(v.FSType, "a directory"), u.FSType)
	case v.Node != "" && (u.AccessMode == volume.ReadWriteMany || u.AccessMode == volume.ReadOnlyMany):
		return fmt.Errorf("%w: volume %s in pool %s lives on node %s alone and cannot be %s; use a shared pool", volume.ErrInvalid, v.ID, v.Pool, v.Node, u.AccessMode)
	}
	return nil
}

// createRange is the least and the most that a new volume may have. Zero
// required takes the default, or the limit where that is lower.
func createRange(r *csi.CapacityRange) (size, limit int64, err error) {
	size, limit, err = checkRange(r)
	if err != nil || size > 0 {
		return size, limit, err
	}
	if limit > 0 {
		return min(limit, defaultSize), limit, nil
	}
	return defaultSize, 0, nil
}

// expandRange is like createRange, but a size is required (CSI 1.13, ControllerExpandVolume).
func expandRange(r *csi.CapacityRange) (size, limit int64, err error) {
	size, limit, err = checkRange(r)
	if err == nil && size == 0 && limit == 0 {
		err = fmt.Errorf("%w: capacity_range is missing", volume.ErrInvalid)
	}
	if size == 0 {
		size = limit
	}
	return size, limit, err
}

func checkRange(r *csi.CapacityRange) (size, limit int64, err error) {
	size, limit = r.GetRequiredBytes(), r.GetLimitBytes()
	switch {
	case size < 0 || limit < 0:
		err = fmt.Errorf("%w: capacity_range is negative (%d to %d)", volume.ErrInvalid, size, limit)
	case limit > 0 && size > limit:
		err = fmt.Errorf("%w: capacity_range requires %d bytes and allows %d", volume.ErrInvalid, size, limit)
	}
	return size, limit, err
}

// nodes are the values of our segment, in order, each once.
func nodes(driver string, topologies []*csi.Topology) []string {
	var out []string
	for _, t := range topologies {
		if n := t.GetSegments()[topologyKey(driver)]; n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
