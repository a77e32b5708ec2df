//go:build root

// Package loopfs is driver/host/loopfs under its earlier name.
package loopfs

import (
	"testing"

	"github.com/plinth-csi/plinth/driver/host/loopfs"
)

// Options say what filesystem to make.
type Options = loopfs.Options

// FS is a mounted filesystem.
type FS = loopfs.FS

// New makes and mounts a filesystem in a temporary directory of the test.
func New(t testing.TB, o Options) FS { t.Helper(); return loopfs.New(t, o) }

// NeedRoot fails the test unless it runs as root.
func NeedRoot(t testing.TB) { t.Helper(); loopfs.NeedRoot(t) }

// NeedTool fails the test, naming the Debian package, if a command is missing.
func NeedTool(t testing.TB, tool, pkg string) { t.Helper(); loopfs.NeedTool(t, tool, pkg) }
