package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlinthNode is what one node offers. Its name is the node's name; the agent
// on that node writes all of it but the owner reference to the Node, which the
// controller adds so that it goes when the Node goes. The agent of a node that
// comes back makes it again.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=pnode
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.status.poolsReady`
// +kubebuilder:printcolumn:name="Volumes",type=integer,JSONPath=`.status.volumes`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.summary`
// +kubebuilder:printcolumn:name="Version",type=string,priority=1,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlinthNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status PlinthNodeStatus `json:"status,omitempty"`
}

// The conditions of a node.
const (
	// ConditionReady is true while every configured pool serves. Each pool
	// has a state of its own beside it.
	ConditionReady = "Ready"
	// ConditionRecordsMatch is false while a pool holds volumes that no
	// PlinthVolume of this cluster explains. They are left alone.
	ConditionRecordsMatch = "RecordsMatch"
)

// PlinthNodeStatus is what the agent reports.
type PlinthNodeStatus struct {
	// Version of the agent.
	// +optional
	Version string `json:"version,omitempty"`
	// PoolsReady is how many pools serve, of how many, as in 2/3.
	// +optional
	PoolsReady string `json:"poolsReady,omitempty"`
	// Summary names each pool with its backend and what is available, in one
	// line for people.
	// +optional
	Summary string `json:"summary,omitempty"`
	// Volumes is how many the pools hold.
	// +optional
	Volumes int32 `json:"volumes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Pools []PoolStatus `json:"pools,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PoolStatus is one pool of a node.
type PoolStatus struct {
	Name string `json:"name"`
	// Backend in use, after auto was resolved.
	// +optional
	Backend string `json:"backend,omitempty"`
	// +optional
	Path string `json:"path,omitempty"`
	// UUID from the pool's marker; the node refuses another disk at this path.
	// +optional
	UUID string `json:"uuid,omitempty"`
	// Shared is true for the same filesystem mounted on every node.
	// +optional
	Shared bool `json:"shared,omitempty"`
	// State is Ready or Unavailable; Reason and Message say why not.
	// +kubebuilder:validation:Enum=Ready;Unavailable
	State string `json:"state"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// Capacity is the size of the filesystem below.
	// +optional
	Capacity resource.Quantity `json:"capacity,omitempty"`
	// Reserved is what volumes have been promised.
	// +optional
	Reserved resource.Quantity `json:"reserved,omitempty"`
	// Available is what can really be provisioned now.
	// +optional
	Available resource.Quantity `json:"available,omitempty"`
	// MaxVolume is the largest single volume that can be made now.
	// +optional
	MaxVolume resource.Quantity `json:"maxVolume,omitempty"`
	// Volumes is how many the pool holds.
	// +optional
	Volumes int32 `json:"volumes,omitempty"`
	// Modes are the volume modes that the backend serves.
	// +optional
	// +listType=atomic
	Modes []string `json:"modes,omitempty"`
	// FSTypes are the filesystems that the backend can make; empty where it
	// gives directories.
	// +optional
	// +listType=atomic
	FSTypes []string `json:"fsTypes,omitempty"`
	// Enforced is false where nothing stops a volume from outgrowing its size.
	// +optional
	Enforced bool `json:"enforced,omitempty"`
	// Abilities are what only some pools can do: Thick, Scrub, Attributes.
	// +optional
	// +listType=atomic
	Abilities []string `json:"abilities,omitempty"`
}

// PlinthNodeList is a list of nodes.
//
// +kubebuilder:object:root=true
type PlinthNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PlinthNode `json:"items"`
}
