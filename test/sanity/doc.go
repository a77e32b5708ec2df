// Package sanity runs csi-sanity, the conformance tests of CSI, against
// Plinth. Without a build tag its tests run in process over the memory backend
// and need no root. With the tag root they run against `plinth standalone` over
// real filesystems on loop devices: see the table in root_test.go. The
// end-to-end tests run it against the sockets of a cluster.
package sanity
