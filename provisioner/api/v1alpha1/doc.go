// Package v1alpha1 holds the three kinds of the group plinth.dev: what the
// cluster wants of each volume (PlinthVolume) and snapshot (PlinthSnapshot),
// and what each node offers (PlinthNode). The controller writes specs, one
// node agent each writes statuses. No logic lives here.
//
// +kubebuilder:object:generate=true
// +groupName=plinth.dev
package v1alpha1
