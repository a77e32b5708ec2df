// Package machine runs one machine of a cluster: a process 1 of its own, below
// it everything the machine runs, in its own namespaces of mounts, processes,
// network, host name and IPC.
//
// Killing process 1 ends the machine as a power cut would: the kernel kills
// everything in the process namespace at once, then drops its mounts.
package machine

import "time"

// Spec is what process 1 needs to know. It travels as JSON.
type Spec struct {
	Name   string // also the host name
	Root   string // folder that becomes /; it is the machine's own disk
	LogDir string // on the host; one file for each unit
	Binds  []Bind
	Disks  []Disk
	Links  []Link
	Units  []Unit
	// Relay is the address inside that connections to the inherited listener go to.
	Relay string
}

// Bind shows a folder of the host inside, read-only.
type Bind struct{ Source, Target string }

// Disk is a filesystem that is mounted before anything starts.
type Disk struct{ Device, FSType, Target string }

// Link is a symbolic link inside.
type Link struct{ Path, Target string }

// Unit is a program that runs for as long as the machine does; it is started
// again when it ends.
type Unit struct {
	Name string
	Argv []string
	Env  []string
	// After are socket addresses, network:address, that must accept connections
	// before the unit starts.
	After []string
	// Gated units wait until the parent opens the gate.
	Gated bool
	// Last units end after all others, when everything they serve has ended.
	Last bool
	// Grace is how long the unit may take to end; 0: a generous default.
	Grace time.Duration
}

// Words that the parent says to process 1 after the spec. If the parent ends
// before it said release, the machine ends too: half a machine is of no use.
const (
	wordOpen    = "open"    // start the gated units
	wordRelease = "release" // from now on live without the parent
)

// Descriptors that process 1 inherits.
const (
	fdWords    = 3 // the spec, then words
	fdAnswer   = 4 // "ready" or what went wrong
	fdListener = 5 // only with Spec.Relay
)

const answerReady = "ready"

// Subcommand is the hidden command under which the program runs as process 1.
const Subcommand = "process-1"
