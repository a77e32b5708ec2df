package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of the three kinds.
var GroupVersion = schema.GroupVersion{Group: "plinth.dev", Version: "v1alpha1"}

// AddToScheme registers the three kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&PlinthVolume{}, &PlinthVolumeList{},
		&PlinthSnapshot{}, &PlinthSnapshotList{},
		&PlinthNode{}, &PlinthNodeList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
