package provisioner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// The parameters of a StorageClass.
const (
	ParamPool        = "pool"                      // names separated by commas; absent is any pool
	ParamVolumeType  = "volumeType"                // csi (default), local or hostPath
	ParamPathPattern = "pathPattern"               // of local and hostPath volumes; see pathPattern
	ParamFSType      = "csi.storage.k8s.io/fstype" // ext4 or xfs, where the pool formats
	ParamTrashKeep   = "trashKeep"                 // how long a deleted volume is kept, with onDelete: trash
)

var (
	volumeTypes = []v1alpha1.VolumeType{v1alpha1.VolumeTypeCSI, v1alpha1.VolumeTypeLocal, v1alpha1.VolumeTypeHostPath}
	fsTypes     = []string{"ext4", "xfs"}
)

// parameters are all that a StorageClass may have.
func parameters() []string {
	return append([]string{ParamPool, ParamVolumeType, ParamFSType, ParamPathPattern, ParamTrashKeep}, volume.SpecParams()...)
}

// Class is what a StorageClass asks for.
type Class struct {
	Name   string
	Pools  []string // allowed names; empty is any
	Type   v1alpha1.VolumeType
	FSType string      // "" takes what the pool gives
	Path   pathPattern // "" gives volumes no path of their own
	// Trash keeps a deleted volume for so long; 0 frees it at once.
	Trash time.Duration
	// Make is how volumes are made: what volume.Spec.Set sets.
	Make       volume.Spec
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
	if err := trashFault(sc.Parameters); err != nil {
		faults = append(faults, err)
	}
	if c.Type == v1alpha1.VolumeTypeHostPath && len(sc.MountOptions) > 0 {
		faults = append(faults, errors.New("mountOptions cannot be honoured for volumeType hostPath; leave them out, or use csi or local"))
	}
	if c.Path != "" && c.Type == v1alpha1.VolumeTypeCSI {
		faults = append(faults, fmt.Errorf("parameter %s goes with volumeType local and hostPath; a csi volume is mounted by kubelet, at paths of its own", ParamPathPattern))
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
	case ParamPathPattern:
		var err error
		c.Path, err = parsePathPattern(value)
		return err
	case ParamFSType:
		c.FSType = value
		if !slices.Contains(fsTypes, value) {
			return fmt.Errorf("parameter %s: %.80q is not one of %s", key, value, strings.Join(fsTypes, ", "))
		}
	case ParamTrashKeep:
		var err error
		c.Trash, err = parseKeep(value)
		return err
	case volume.ParamOnDelete:
		if value == onDeleteTrash {
			return nil // the volume itself is made as any
		}
		if _, err := c.Make.Set(key, value); err != nil {
			return fmt.Errorf("parameter %s: %.80q is not one of %s, %s, %s", key, value, volume.Delete, volume.Scrub, onDeleteTrash)
		}
	default:
		known, err := c.Make.Set(key, value)
		if !known {
			err = fmt.Errorf("unknown parameter %.80q; the parameters are %s", key, strings.Join(parameters(), ", "))
		}
		return err
	}
	return nil
}

// sentence joins faults as one line for an event.
func sentence(faults []error) string {
	words := make([]string, 0, len(faults))
	for _, f := range faults {
		words = append(words, strings.TrimPrefix(f.Error(), volume.ErrInvalid.Error()+": "))
	}
	return strings.Join(words, "; ")
}

// needs are the abilities that a pool must have for the class's volumes.
func (c *Class) needs() []volume.Ability {
	var out []volume.Ability
	if c.Make.Thick {
		out = append(out, volume.AbleThick)
	}
	if c.Make.OnDelete == volume.Scrub {
		out = append(out, volume.AbleScrub)
	}
	return out
}

// delayed says whether sc waits for the first consumer of a claim.
func delayed(sc *storagev1.StorageClass) bool {
	mode := storagev1.VolumeBindingImmediate
	if sc.VolumeBindingMode != nil {
		mode = cmp.Or(*sc.VolumeBindingMode, mode)
	}
	return mode == storagev1.VolumeBindingWaitForFirstConsumer
}
