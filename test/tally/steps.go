package main

import "time"

// step is one script of test/scripts, or another program of the checkout.
type step struct {
	name string
	argv []string // from the checkout's root
	// gotest: it prints the events of go test -json. Otherwise the step is one
	// test itself, unless it only prepares for others.
	gotest, prepares bool
	// needs are the steps that must have succeeded; after are those that must
	// only have ended, so as not to disturb each other.
	needs, after []string
	always       bool          // runs also when the run was interrupted or what it needs failed
	limit        time.Duration // it is killed then, and has failed
}

// steps are all there are, in the order in which they are begun when they are
// free to. Two run at a time, on the two cores that CI has: one that compiles
// beside one that waits for disks or a virtual machine.
func steps() []step {
	return []step{
		{name: "tools", argv: []string{"test/scripts/cluster", "tools"}, prepares: true, limit: 30 * time.Minute},
		{name: "unit", argv: []string{"test/scripts/unit", "-json"}, gotest: true, limit: 15 * time.Minute},
		{name: "sanity", argv: []string{"test/scripts/sanity", "-json"}, gotest: true, after: []string{"unit"}, limit: 30 * time.Minute},
		{name: "image", argv: []string{"test/images/build"}, prepares: true, limit: 10 * time.Minute},
		{name: "sidecars", argv: []string{"test/images/sidecars"}, prepares: true, needs: []string{"image"}, limit: 20 * time.Minute},
		{name: "databases", argv: []string{"test/images/databases"}, prepares: true, needs: []string{"image"}, limit: 20 * time.Minute},
		{name: "upstream-build", argv: []string{"test/upstream/build"}, prepares: true, needs: []string{"tools"}, limit: 30 * time.Minute},
		{name: "lint", argv: []string{"test/scripts/lint"}, needs: []string{"tools"}, limit: 15 * time.Minute},
		{name: "verify", argv: []string{"test/scripts/verify"}, needs: []string{"tools"}, limit: 10 * time.Minute},
		{name: "chart", argv: []string{"test/scripts/chart", "-json"}, gotest: true, needs: []string{"tools"}, limit: 5 * time.Minute},
		{name: "vm", argv: []string{"test/vm/run", "-json"}, gotest: true, limit: 25 * time.Minute},
		{name: "crash", argv: []string{"test/scripts/crash", "-json"}, gotest: true, after: []string{"sanity"}, limit: 20 * time.Minute},
		{name: "vm-sanity", argv: []string{"test/vm/run", "sanity", "-json"}, gotest: true, after: []string{"vm"}, limit: 20 * time.Minute},
		{name: "cluster", argv: []string{"test/scripts/cluster-test", "-json"}, gotest: true, needs: []string{"tools"},
			after: []string{"unit", "sanity", "lint", "verify", "chart", "vm", "vm-sanity", "crash"}, limit: 15 * time.Minute},
		// Alone: a busy machine makes a cluster's tests slow, and slow tests fail.
		{name: "e2e", argv: []string{"test/scripts/e2e", "-json"}, gotest: true, limit: 45 * time.Minute,
			needs: []string{"tools", "image", "sidecars"}, after: []string{"unit", "sanity", "lint", "verify", "chart", "vm", "vm-sanity", "crash", "cluster"}},
		{name: "workloads", argv: []string{"test/scripts/workloads", "-json"}, gotest: true, limit: 20 * time.Minute,
			needs: []string{"tools", "image", "sidecars", "databases"}, after: []string{"e2e"}},
		{name: "upstream", argv: []string{"test/scripts/e2e-upstream", "-subset", "-json"}, gotest: true, limit: 20 * time.Minute,
			needs: []string{"tools", "image", "sidecars", "upstream-build"}, after: []string{"workloads"}},
		{name: "cluster-down", argv: []string{"test/scripts/down-unless-kept"}, always: true, after: []string{"e2e", "workloads", "upstream"}, limit: 5 * time.Minute},
	}
}
