package driver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The parameters of a StorageClass. A key with reservedPrefix that is not
// listed comes from a sidecar and is no concern of ours.
const (
	paramPool       = "pool"
	paramVolumeType = "volumeType"
	reservedPrefix  = "csi.storage.k8s.io/"
	paramFSType     = reservedPrefix + "fstype"
	paramClaim      = reservedPrefix + "pvc/name"
	paramNamespace  = reservedPrefix + "pvc/namespace"
	paramVolume     = reservedPrefix + "pv/name"
	ephemeralKey    = reservedPrefix + "ephemeral"
)

// maxString is the length in bytes that CSI allows a string (CSI 1.13, "Size Limits").
const maxString = 128

// defaultSize is the size, in bytes, of a volume whose request names none.
const defaultSize = 1 << 30

func topologyKey(driver string) string { return driver + "/node" }

// volumeID reads the ID in a request. One that cannot be ours names a volume
// that does not exist (CSI 1.13: NOT_FOUND); only its absence is invalid.
func volumeID(s string) (volume.ID, error) {
	if s == "" {
		return "", fmt.Errorf("%w: volume_id is missing", volume.ErrInvalid)
	}
	id, err := volume.ParseID(s)
	if err != nil {
		return "", fmt.Errorf("volume %.80q: %w", s, volume.ErrNotFound)
	}
	return id, nil
}

func createRequest(driver string, req *csi.CreateVolumeRequest) (volume.Request, error) {
	name := req.GetName()
	switch {
	case name == "":
		return volume.Request{}, fmt.Errorf("%w: name is missing", volume.ErrInvalid)
	case len(name) > maxString:
		return volume.Request{}, fmt.Errorf("%w: name is longer than %d bytes", volume.ErrInvalid, maxString)
	case req.GetVolumeContentSource() != nil:
		return volume.Request{}, fmt.Errorf("%w: volumes from a snapshot or another volume", volume.ErrUnsupported)
	case len(req.GetMutableParameters()) > 0:
		return volume.Request{}, fmt.Errorf("%w: mutable parameters (VolumeAttributesClass)", volume.ErrUnsupported)
	}
	r, err := describeRequest(req.GetVolumeCapabilities(), req.GetParameters())
	if err != nil {
		return volume.Request{}, err
	}
	r.Name, r.ID = name, volume.IDForName(name)
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
	if r.FSType == "" && r.Mode == volume.Filesystem {
		r.FSType = p.fsType
	}
	return nil
}

// parameters is a StorageClass as the driver understands it.
type parameters struct {
	pool, fsType string
	labels       map[string]string
}

// parseParameters refuses what it does not know, naming the keys but never
// their values.
func parseParameters(params map[string]string) (parameters, error) {
	var p parameters
	for _, key := range slices.Sorted(maps.Keys(params)) {
		value := params[key]
		switch key {
		case paramPool:
			p.pool = value
		case paramVolumeType:
			if value != "csi" {
				return p, fmt.Errorf("%w: %s %.40q: this service makes csi volumes; leave the parameter out, or provision through Plinth's controller, which makes csi, local and hostPath", volume.ErrInvalid, key, value)
			}
		case paramFSType:
			p.fsType = value
		case paramClaim, paramNamespace, paramVolume:
			if p.labels == nil {
				p.labels = map[string]string{}
			}
			p.labels[key] = value
		default:
			if !strings.HasPrefix(key, reservedPrefix) {
				return p, fmt.Errorf("%w: unknown parameter %.80q; the parameters are %s, %s and %s", volume.ErrInvalid, key, paramPool, paramVolumeType, paramFSType)
			}
		}
	}
	return p, nil
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
