package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The parameters of a StorageClass. A key with reservedPrefix that is not
// listed comes from a sidecar or from kubelet and is no concern of ours.
const (
	paramPool       = "pool"
	paramVolumeType = "volumeType"
	reservedPrefix  = "csi.storage.k8s.io/"
	paramFSType     = reservedPrefix + "fstype"
	paramClaim      = reservedPrefix + "pvc/name"
	paramNamespace  = reservedPrefix + "pvc/namespace"
	paramVolume     = reservedPrefix + "pv/name"
)

// The attributes of an inline volume in a pod.
const (
	inlineSize   = "size"
	ephemeralKey = reservedPrefix + "ephemeral"
	inlinePod    = reservedPrefix + "pod.name"
	inlinePodNS  = reservedPrefix + "pod.namespace"
)

// parameters is a StorageClass as the driver understands it.
type parameters struct {
	pool, fsType string
	spec         volume.Spec // of it, what volume.Spec.Set sets
	labels       map[string]string
}

// parseParameters refuses what it does not know, naming the keys but never
// the values of unknown ones.
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
		default:
			known, err := p.spec.Set(key, value)
			if err != nil {
				return p, err
			}
			if !known && !strings.HasPrefix(key, reservedPrefix) {
				return p, fmt.Errorf("%w: unknown parameter %.80q; the parameters are %s", volume.ErrInvalid, key, strings.Join(storageClassKeys(), ", "))
			}
		}
	}
	p.labels = labels(params, paramClaim, paramNamespace, paramVolume)
	return p, nil
}

func storageClassKeys() []string {
	return append([]string{paramPool, paramVolumeType, paramFSType}, volume.SpecParams()...)
}

// labels are the parameters of those keys, for people; nil if there are none.
func labels(params map[string]string, keys ...string) map[string]string {
	var out map[string]string
	for _, key := range keys {
		if value, ok := params[key]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
		}
	}
	return out
}

// noParameters refuses the parameters of a snapshot class, which has none,
// and returns those that the sidecar adds as labels.
func noParameters(params map[string]string, keys ...string) (map[string]string, error) {
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if !strings.HasPrefix(key, reservedPrefix) {
			return nil, fmt.Errorf("%w: unknown parameter %.80q; snapshots have no parameters", volume.ErrInvalid, key)
		}
	}
	return labels(params, keys...), nil
}

// inlineRequest is the volume that a pod asks for in its own spec; attributes
// are what the pod says and kubelet adds.
func inlineRequest(handle string, u volume.Use, attributes map[string]string) (volume.Request, error) {
	id, _, err := handleID(handle)
	if err != nil {
		return volume.Request{}, err
	}
	r := volume.Request{
		Spec:        volume.Spec{ID: id, Size: defaultSize, Mode: u.Mode, FSType: u.FSType},
		Name:        handle,
		AccessModes: []volume.AccessMode{u.AccessMode},
		Labels:      labels(attributes, inlinePod, inlinePodNS),
		Ephemeral:   true,
	}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		value := attributes[key]
		switch {
		case key == paramPool:
			r.Pool = value
		case key == inlineSize:
			q, err := resource.ParseQuantity(value)
			if err != nil || q.Sign() <= 0 {
				return r, fmt.Errorf("%w: %s %.40q is not a quantity of bytes; write it like 10Gi", volume.ErrInvalid, key, value)
			}
			r.Size = q.Value()
		case key == volume.ParamMode || key == volume.ParamOwner:
			if _, err := r.Set(key, value); err != nil {
				return r, err
			}
		case !strings.HasPrefix(key, reservedPrefix):
			return r, fmt.Errorf("%w: unknown attribute %.80q; the attributes of an inline volume are %s", volume.ErrInvalid, key,
				strings.Join([]string{inlineSize, paramPool, volume.ParamMode, volume.ParamOwner}, ", "))
		}
	}
	return r, nil
}
