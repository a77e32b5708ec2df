package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlinthSnapshot is one snapshot of one volume, kept in that volume's pool.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=psnap
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Ready",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Volume",type=string,JSONPath=`.spec.volume`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.size`
// +kubebuilder:printcolumn:name="Group",type=string,priority=1,JSONPath=`.spec.group.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlinthSnapshot struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PlinthSnapshotSpec   `json:"spec"`
	Status PlinthSnapshotStatus `json:"status,omitempty"`
}

// PlinthSnapshotSpec is the intent; it never changes, but for the node that
// looks after a snapshot in a shared pool.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf || has(self.shared) && self.shared && has(oldSelf.shared) && oldSelf.shared && self.pool == oldSelf.pool && self.volume == oldSelf.volume && self.volumeMode == oldSelf.volumeMode && (has(self.fsType) ? has(oldSelf.fsType) && self.fsType == oldSelf.fsType : !has(oldSelf.fsType)) && (has(self.name) ? has(oldSelf.name) && self.name == oldSelf.name : !has(oldSelf.name)) && (has(self.group) ? has(oldSelf.group) && self.group == oldSelf.group : !has(oldSelf.group))",message="a snapshot never changes"
type PlinthSnapshotSpec struct {
	// NodeName is the node that keeps the volume and the snapshot. Another takes
	// over a snapshot in a shared pool when that node is gone.
	// +kubebuilder:validation:MinLength=1
	NodeName string `json:"nodeName"`
	// Pool is the pool's name on that node.
	// +kubebuilder:validation:MinLength=1
	Pool string `json:"pool"`
	// Shared is true where every node that has the pool reaches the snapshot.
	// +optional
	Shared bool `json:"shared,omitempty"`
	// Volume is the name of the PlinthVolume.
	// +kubebuilder:validation:MinLength=1
	Volume string `json:"volume"`
	// VolumeMode is that of the volume.
	// +kubebuilder:validation:Enum=Filesystem;Block
	VolumeMode string `json:"volumeMode"`
	// FSType is the filesystem of the volume, where its pool formats.
	// +kubebuilder:validation:MaxLength=16
	// +optional
	FSType string `json:"fsType,omitempty"`
	// Name is the requester's name for the snapshot where it is not the object's own.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`
	// Group is set where the snapshot is asked for together with those of
	// other volumes: all are taken at one instant, or none is.
	// +optional
	Group *SnapshotGroup `json:"group,omitempty"`
}

// SnapshotGroup is what the snapshots of a group have in common. The group is
// taken once there is a PlinthSnapshot of each of its volumes, and goes with
// the last of them.
type SnapshotGroup struct {
	// ID is that of the group.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ID string `json:"id"`
	// Name is the requester's name for the group.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Volumes are the PlinthVolumes, all of the same node, in their order.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=atomic
	Volumes []string `json:"volumes"`
}

// PlinthSnapshotStatus is what the node reports.
type PlinthSnapshotStatus struct {
	// Ready is true once the snapshot is whole.
	// +optional
	Ready bool `json:"ready,omitempty"`
	// Size is the smallest size in bytes that a restored volume may have. It
	// is set, with CreatedAt, as soon as the snapshot is cut.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// CreatedAt is the point in time that the snapshot shows.
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`
	// Reason is one word, Message a sentence, when it is not ready.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// PlinthSnapshotList is a list of snapshots.
//
// +kubebuilder:object:root=true
type PlinthSnapshotList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PlinthSnapshot `json:"items"`
}
