package sanity

import (
	"slices"
	"strings"
)

// allowedSkip is a test of csi-sanity that may be skipped, and why.
type allowedSkip struct{ test, reason string }

// allowedSkips is all of them, each named by a part of its full name. Any
// other skip fails.
func allowedSkips() []allowedSkip {
	const (
		local   = "a volume is where its node is: there is nothing to attach, and PUBLISH_UNPUBLISH_VOLUME is not announced"
		pending = "csi-test itself never runs it (XIt)"
		alpha   = "not announced: csi-test 5.6.0 compares messages with their caches, so no driver that answers a topology passes"
	)
	return []allowedSkip{
		{"ControllerPublishVolume should", local},
		{"ControllerUnpublishVolume should", local},
		{"Controller Service [Controller Server] volume lifecycle should", local},
		{"pagination should detect volumes added between pages", pending},
		{"should succeed when creating a snapshot with accessibility requirements", alpha},
	}
}

// allowed says whether a test may be skipped.
func allowed(test string) bool {
	return slices.ContainsFunc(allowedSkips(), func(s allowedSkip) bool { return strings.Contains(test, s.test) })
}

// NoGroups are the tests of a service that is not announced where no pool can
// take several volumes at one instant.
const NoGroups = `GroupController Service`

// Lacking are the tests of what a controller does not announce, as a regular
// expression; announced are the conditions, in the words of docs/csi.md, under
// which it announces something.
func Lacking(announced []string) string {
	var lacks []string
	for when, tests := range map[string]string{
		"with groups":        NoGroups,
		"with modifications": `ModifyVolume \[Controller Server\]|volume attribute class`,
		"with health":        `Controller(Get|List)VolumeHealth`,
	} {
		if !slices.Contains(announced, when) {
			lacks = append(lacks, tests)
		}
	}
	return strings.Join(lacks, "|")
}
