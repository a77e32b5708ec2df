package provisioner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// The parameters of a StorageClass.
const (
	ParamPool       = "pool"                      // names separated by commas; absent is any pool
	ParamVolumeType = "volumeType"                // csi (default), local or hostPath
	ParamFSType     = "csi.storage.k8s.io/fstype" // ext4 or xfs, where the pool formats
)

var (
	volumeTypes = []v1alpha1.VolumeType{v1alpha1.VolumeTypeCSI, v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath}
	fsTypes     = []string{"ext4", "xfs"}
	parameters  = []string{ParamPool, ParamVolumeType, ParamFSType}
)

// Class is what a StorageClass asks for.
type Class struct {
	Name       string
	Pools      []string // allowed names; empty is any
	Type       v1alpha1.VolumeType
	FSType     string // "" takes what the pool gives
	Topologies []placement.Term
}

// ParseClass reads a StorageClass, or says all that is wrong with it, with
// the values that are allowed. The error is ErrInvalid.
func ParseClass(sc *storagev1.StorageClass) (Class, error) {
	c := Class{Name: sc.Name, Type: v1alpha1.VolumeTypeCSI}
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(sc.Parameters)) {
		if err := c.set(key, sc.Parameters[key]); err != nil {
			faults = append(faults, err)
		}
	}
	if c.Type == v1alpha1.VolumeTypeHostPath && len(sc.MountOptions) > 0 {
		faults = append(faults, errors.New("mountOptions cannot be honoured for volumeType hostPath; leave them out, or use csi or local"))
	}
	for _, t := range sc.AllowedTopologies {
		term := placement.Term{}
		for _, e := range t.MatchLabelExpressions {
			term[e.Key] = e.Values
		}
		c.Topologies = append(c.Topologies, term)
	}
	if len(faults) > 0 {
		return Class{}, fmt.Errorf("%w: StorageClass %s: %s", volume.ErrInvalid, sc.Name, sentence(faults))
	}
	return c, nil
}

func (c *Class) set(key, value string) error {
	switch key {
	case ParamPool:
		for name := range strings.SplitSeq(value, ",") {
			name = strings.TrimSpace(name)
			if _, err := volume.ParseID(name); err != nil {
				return fmt.Errorf("parameter %s: %.80q is not the name of a pool; give one or several separated by commas, or leave it out for any", key, name)
			}
			if !slices.Contains(c.Pools, name) {
				c.Pools = append(c.Pools, name)
			}
		}
	case ParamVolumeType:
		c.Type = v1alpha1.VolumeType(value)
		if !slices.Contains(volumeTypes, c.Type) {
			return fmt.Errorf("parameter %s: %.80q is not one of csi, local, hostPath", key, value)
		}
	case ParamFSType:
		c.FSType = value
		if !slices.Contains(fsTypes, value) {
			return fmt.Errorf("parameter %s: %.80q is not one of %s", key, value, strings.Join(fsTypes, ", "))
		}
	default:
		return fmt.Errorf("unknown parameter %.80q; the parameters are %s", key, strings.Join(parameters, ", "))
	}
	return nil
}

// sentence joins faults as one line for an event.
func sentence(faults []error) string {
	words := make([]string, 0, len(faults))
	for _, f := range faults {
		words = append(words, f.Error())
	}
	return strings.Join(words, "; ")
}

// delayed says whether sc waits for the first consumer of a claim.
func delayed(sc *storagev1.StorageClass) bool {
	mode := storagev1.VolumeBindingImmediate
	if sc.VolumeBindingMode != nil {
		mode = cmp.Or(*sc.VolumeBindingMode, mode)
	}
	return mode == storagev1.VolumeBindingWaitForFirstConsumer
}
