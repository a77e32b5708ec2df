package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Finalizer holds a PlinthVolume or PlinthSnapshot until its node has freed
// the bytes. The controller sets it at creation, the node agent removes it.
const Finalizer = "plinth.dev/bytes"

// PlinthVolume is one volume: the spec is the controller's intent, the status
// what the node that keeps it has made of it. Its name is the volume's ID and
// the name of its PersistentVolume.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=pvol
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.nodeName`
// +kubebuilder:validation:XValidation:rule="quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.spec.size))) >= 0 || (oldSelf.?status.size.hasValue() && quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.status.size))) >= 0)",message="a volume never shrinks"
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.spec.size`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.volumeType`
// +kubebuilder:printcolumn:name="Claim",type=string,JSONPath=`.spec.claimName`
// +kubebuilder:printcolumn:name="Namespace",type=string,priority=1,JSONPath=`.spec.claimNamespace`
// +kubebuilder:printcolumn:name="Kept-Until",type=string,priority=1,JSONPath=`.spec.trashedUntil`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlinthVolume struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PlinthVolumeSpec   `json:"spec"`
	Status PlinthVolumeStatus `json:"status,omitempty"`
}

// VolumeType is what kind of PersistentVolume a claim gets.
// +kubebuilder:validation:Enum=csi;local;hostPath
type VolumeType string

// The volume types.
const (
	VolumeTypeCSI      VolumeType = "csi"
	VolumeTypeLocal    VolumeType = "local"
	VolumeTypeHostPath VolumeType = "hostPath"
)

// PlinthVolumeSpec is the intent. Of what describes the volume itself only
// its attributes and size may change: it grows, and an intent to grow that failed may be taken
// back as far as the size that holds.
//
// +kubebuilder:validation:XValidation:rule="(self.nodeName == oldSelf.nodeName || (has(self.shared) && self.shared)) && self.pool == oldSelf.pool && self.volumeMode == oldSelf.volumeMode && self.volumeType == oldSelf.volumeType && (has(self.shared) ? has(oldSelf.shared) && self.shared == oldSelf.shared : !has(oldSelf.shared)) && (has(self.fsType) ? has(oldSelf.fsType) && self.fsType == oldSelf.fsType : !has(oldSelf.fsType)) && (has(self.thick) ? has(oldSelf.thick) && self.thick == oldSelf.thick : !has(oldSelf.thick)) && (has(self.onDelete) ? has(oldSelf.onDelete) && self.onDelete == oldSelf.onDelete : !has(oldSelf.onDelete)) && (has(self.mkfsOptions) ? has(oldSelf.mkfsOptions) && self.mkfsOptions == oldSelf.mkfsOptions : !has(oldSelf.mkfsOptions)) && (has(self.root) ? has(oldSelf.root) && self.root == oldSelf.root : !has(oldSelf.root)) && (has(self.name) ? has(oldSelf.name) && self.name == oldSelf.name : !has(oldSelf.name)) && (has(self.source) ? has(oldSelf.source) && self.source == oldSelf.source : !has(oldSelf.source))",message="where a volume is and what it is made of never changes"
// +kubebuilder:validation:XValidation:rule="!has(self.trashedUntil) || (has(self.retained) && self.retained)",message="what is in the trash is retained: set both, or take trashedUntil away to undelete the volume"
// +kubebuilder:validation:XValidation:rule="has(self.path) ? has(oldSelf.path) && self.path == oldSelf.path : !has(oldSelf.path)",message="the path of a volume never changes"
// +kubebuilder:validation:XValidation:rule="has(self.importFrom) ? has(oldSelf.importFrom) && self.importFrom == oldSelf.importFrom : !has(oldSelf.importFrom)",message="what a volume was imported from never changes"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.releaseTo) || has(self.releaseTo) && self.releaseTo == oldSelf.releaseTo",message="a volume that is released is not taken back; import it again"
// +kubebuilder:validation:XValidation:rule="!has(self.releaseTo) || has(self.retained) && self.retained",message="only a retained volume can be released, and one that is released cannot be adopted"
// +kubebuilder:validation:XValidation:rule="!has(self.releaseTo) || !has(self.trashedUntil)",message="take a volume out of the trash before it is released: set trashedUntil to null"
// +kubebuilder:validation:XValidation:rule="!has(self.importFrom) || self.volumeMode == 'Filesystem' && !has(self.source) && !has(self.path)",message="an imported volume is a Filesystem with the content and the place that it has"
type PlinthVolumeSpec struct {
	// NodeName is the node that makes the volume and, but for shared pools,
	// keeps it. Another takes over a volume of a shared pool when that node is
	// no more.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// Pool is the pool's name on that node.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Pool string `json:"pool"`
	// Shared is true where every node that has the pool reaches the volume: a
	// directory in a shared pool. NodeName then only says who makes it.
	// +optional
	Shared bool `json:"shared,omitempty"`
	// Size is the hard limit in bytes.
	Size resource.Quantity `json:"size"`
	// VolumeMode is Filesystem or Block.
	// +kubebuilder:validation:Enum=Filesystem;Block
	VolumeMode string `json:"volumeMode"`
	// FSType is the filesystem to make, for backends that format.
	// +kubebuilder:validation:MaxLength=16
	// +optional
	FSType string `json:"fsType,omitempty"`
	// Thick is true where the bytes are allocated when the volume is made.
	// +optional
	Thick bool `json:"thick,omitempty"`
	// OnDelete says what becomes of the bytes when the volume is freed: delete
	// (default) or scrub.
	// +kubebuilder:validation:Enum=delete;scrub
	// +optional
	OnDelete string `json:"onDelete,omitempty"`
	// MkfsOptions are arguments for mkfs, of those that the node allows.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=256
	// +optional
	// +listType=atomic
	MkfsOptions []string `json:"mkfsOptions,omitempty"`
	// Root says how the root directory of a new volume is made.
	// +optional
	Root *VolumeRoot `json:"root,omitempty"`
	// Attributes are what a VolumeAttributesClass asks for. They may change;
	// without them there are none.
	// +optional
	Attributes *VolumeAttributes `json:"attributes,omitempty"`
	// VolumeType is the kind of PersistentVolume.
	VolumeType VolumeType `json:"volumeType"`
	// AccessModes are all the modes that the claim asked for.
	// +kubebuilder:validation:MaxItems=4
	// +optional
	// +listType=atomic
	AccessModes []string `json:"accessModes,omitempty"`
	// Name is the requester's name for the volume where it is not the object's own.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`
	// Source is what the volume starts with, in the same pool; without one it
	// is empty.
	// +optional
	Source *VolumeSource `json:"source,omitempty"`
	// Path is where a local or hostPath volume is to be found, below the
	// directory paths of its pool; without one it has no name of its own there.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`
	// +optional
	Path string `json:"path,omitempty"`
	// ImportFrom is a directory below the pool's path that others made, and that
	// becomes the volume, in place. An administrator writes it.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`
	// +optional
	ImportFrom string `json:"importFrom,omitempty"`
	// ReleaseTo is the directory below the pool's path that a retained volume is
	// to become, in place. An administrator writes it.
	// +kubebuilder:validation:XValidation:rule="!self.matches('^(volumes|snapshots|paths)(/|$)')",message="that is a place of Plinth's own"
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`
	// +optional
	ReleaseTo string `json:"releaseTo,omitempty"`
	// Retained is true while its PersistentVolume is gone and its data is kept
	// for whoever adopts it.
	// +optional
	Retained bool `json:"retained,omitempty"`
	// TrashKeep is how long the volume is kept in the trash once its claim and
	// PersistentVolume are deleted (onDelete: trash); without it, it is freed
	// at once.
	// +optional
	TrashKeep *metav1.Duration `json:"trashKeep,omitempty"`
	// TrashedUntil says that the volume is in the trash, and when the controller
	// deletes it. The controller sets it, together with retained. Whoever takes
	// it away undeletes the volume, which is then retained; an earlier or later
	// time is honoured.
	// +optional
	TrashedUntil *metav1.Time `json:"trashedUntil,omitempty"`
	// ClaimNamespace and ClaimName are the claim that has it, or had it last.
	// +optional
	ClaimNamespace string `json:"claimNamespace,omitempty"`
	// +optional
	ClaimName string `json:"claimName,omitempty"`
	// ClaimUID is the UID of that claim.
	// +optional
	ClaimUID string `json:"claimUID,omitempty"`
	// StorageClassName is the class it was made from.
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`
}

// VolumeRoot is the owner and the permissions of a volume's root directory
// when it is made. What is restored or cloned keeps those of its source.
type VolumeRoot struct {
	// Mode is the permissions as a number, 504 for 0770 in octal; without, as
	// the pool makes it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2047
	// +optional
	Mode int32 `json:"mode,omitempty"`
	// UID and GID own it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967294
	// +optional
	UID int64 `json:"uid,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967294
	// +optional
	GID int64 `json:"gid,omitempty"`
}

// VolumeAttributes may change in a volume's life.
type VolumeAttributes struct {
	// InodeLimit is the most inodes it may have; 0 is no limit.
	// +kubebuilder:validation:Minimum=0
	// +optional
	InodeLimit int64 `json:"inodeLimit,omitempty"`
	// SoftLimit is the percentage of its size that it may exceed for the pool's
	// grace time only; 0 is none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=99
	// +optional
	SoftLimit int32 `json:"softLimit,omitempty"`
}

// VolumeSource names what a volume starts with.
//
// +kubebuilder:validation:XValidation:rule="has(self.snapshot) != has(self.volume)",message="give a snapshot or a volume"
type VolumeSource struct {
	// Snapshot is the name of a PlinthSnapshot.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Snapshot string `json:"snapshot,omitempty"`
	// Volume is the name of a PlinthVolume.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Volume string `json:"volume,omitempty"`
}

// VolumePhase is where a volume is in its life.
// +kubebuilder:validation:Enum=Pending;Ready;Failed;Retained;Trashed;Released
type VolumePhase string

// The phases of a volume. An object with a deletionTimestamp is being freed,
// whatever its phase says.
const (
	// VolumePending: not made yet; the message says what it waits for.
	VolumePending VolumePhase = "Pending"
	// VolumeReady: made, with its limit set.
	VolumeReady VolumePhase = "Ready"
	// VolumeFailed: cannot be made on this node; the reason says why. The
	// controller places it elsewhere or reports to the claim.
	VolumeFailed VolumePhase = "Failed"
	// VolumeRetained: its PersistentVolume is gone and the data is kept.
	VolumeRetained VolumePhase = "Retained"
	// VolumeTrashed: it was deleted and is kept until spec.trashedUntil.
	VolumeTrashed VolumePhase = "Trashed"
	// VolumeReleased: it is a plain directory now, at the path of the status,
	// and nothing of Plinth's.
	VolumeReleased VolumePhase = "Released"
)

// The reasons of a volume that is not Ready.
const (
	// ReasonNoCapacity: the pool could not promise the bytes.
	ReasonNoCapacity = "NoCapacity"
	// ReasonInvalid: the request can never succeed as it stands.
	ReasonInvalid = "Invalid"
	// ReasonPathTaken: another volume of the pool has the path.
	ReasonPathTaken = "PathTaken"
	// ReasonPoolUnavailable: the node has no such pool, or it is refused.
	ReasonPoolUnavailable = "PoolUnavailable"
	// ReasonUnsupported: the pool's backend cannot make such a volume.
	ReasonUnsupported = "Unsupported"
	// ReasonCopying: a snapshot is being copied; the message says how far.
	ReasonCopying = "Copying"
	// ReasonSourceMissing: the snapshot or volume to start with is not there.
	ReasonSourceMissing = "SourceMissing"
	// ReasonInternal: an operation failed on the node and is tried again.
	ReasonInternal = "Internal"
	// ReasonInUse: the volume is to be deleted and is still mounted.
	ReasonInUse = "InUse"
	// ReasonWithdrawn: the object goes with its CustomResourceDefinition; nothing is freed.
	ReasonWithdrawn = "Withdrawn"
	// ReasonDataMissing: the volume was made and its data is not there now.
	// The node never makes it a second time.
	ReasonDataMissing = "DataMissing"
)

// PlinthVolumeStatus is what the node reports.
type PlinthVolumeStatus struct {
	// +optional
	Phase VolumePhase `json:"phase,omitempty"`
	// Size is the limit that holds now, in bytes. It is set once the volume
	// has been made and stays: a volume with a size has, or had, data.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// Attributes are those that hold now; without them there are none.
	// +optional
	Attributes *VolumeAttributes `json:"attributes,omitempty"`
	// AttributesReason is one word, AttributesMessage a sentence, where those
	// of the spec do not hold.
	// +optional
	AttributesReason string `json:"attributesReason,omitempty"`
	// +optional
	AttributesMessage string `json:"attributesMessage,omitempty"`
	// Path is where local and hostPath volumes are on the node, and where a
	// volume is that was released.
	// +optional
	Path string `json:"path,omitempty"`
	// Reason is one word, Message a sentence, when the phase is not Ready.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// ObservedGeneration is the generation that this status answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// PlinthVolumeList is a list of volumes.
//
// +kubebuilder:object:root=true
type PlinthVolumeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PlinthVolume `json:"items"`
}
