package ledger

import (
	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// MakeAs writes down how a volume is made: what volume.Spec.Set sets, and its
// attributes.
func MakeAs(to *v1alpha1.PlinthVolumeSpec, s volume.Spec) {
	to.Thick, to.MkfsOptions, to.Attributes = s.Thick, s.MkfsOptions, AttributesIn(s.Attributes)
	if s.OnDelete != volume.Delete {
		to.OnDelete = string(s.OnDelete)
	}
	if r := s.Root; r != (volume.Root{}) {
		to.Root = &v1alpha1.VolumeRoot{Mode: int32(r.Mode), UID: int64(r.UID), GID: int64(r.GID)} //nolint:gosec // 12 bits
	}
}

// MadeAs reads what MakeAs wrote; the schema of the object bounds it.
func MadeAs(v v1alpha1.PlinthVolumeSpec) volume.Spec {
	s := volume.Spec{
		Thick: v.Thick, OnDelete: volume.OnDelete(v.OnDelete), MkfsOptions: v.MkfsOptions, Attributes: AttributesOf(v.Attributes),
	}
	if v.Root != nil {
		s.Root = volume.Root{Mode: uint32(v.Root.Mode), UID: uint32(v.Root.UID), GID: uint32(v.Root.GID)} //nolint:gosec // bounded
	}
	return s
}

// AttributesOf reads attributes from an object; nil is none.
func AttributesOf(a *v1alpha1.VolumeAttributes) volume.Attributes {
	if a == nil {
		return volume.Attributes{}
	}
	return volume.Attributes{Inodes: a.InodeLimit, SoftLimit: int(a.SoftLimit)}
}

// AttributesIn writes them down; nil for none.
func AttributesIn(a volume.Attributes) *v1alpha1.VolumeAttributes {
	if a == (volume.Attributes{}) {
		return nil
	}
	return &v1alpha1.VolumeAttributes{InodeLimit: a.Inodes, SoftLimit: int32(a.SoftLimit)} //nolint:gosec // a percentage
}
