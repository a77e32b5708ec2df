// Package e2e tests Plinth as its users meet it: on a real cluster, through
// the API server, with pods that read and write. `make e2e` runs it; every
// file but this one carries the build tag e2e.
//
// The cluster is the one of KUBECONFIG, or of test/cluster at its usual place.
// Tests find pools by what the PlinthNode objects say, not by name, so they
// run on any cluster whose nodes have an enforcing btrfs pool, an image pool
// and a shared pool. PLINTH_CLUSTER names the test/cluster binary, with which
// some tests reach into nodes (`exec NODE -- …`) and a failed run collects its
// evidence (`collect DIR`).
package e2e
