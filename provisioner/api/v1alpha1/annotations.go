package v1alpha1

// The annotations that people and other programs write or read.
const (
	// AnnotationAdopt on a claim names the retained PlinthVolume that it is to
	// have, with its data.
	AnnotationAdopt = "plinth.dev/adopt"
	// AnnotationAdopters on a PlinthVolume lists, separated by commas, the
	// namespaces whose claims may adopt it beside that of its last claim. Only
	// administrators can set it.
	AnnotationAdopters = "plinth.dev/adopters"
	// AnnotationVolume names the PlinthVolume behind a PersistentVolume. Where
	// an administrator writes one over a path it is all that tells.
	AnnotationVolume = "plinth.dev/volume"
)
