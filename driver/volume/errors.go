package volume

import "errors"

// The ways in which work on a volume fails. Lower layers wrap one of these
// with what was being done to which volume; driver/errors.go is the one table
// that turns them into gRPC codes, and the provisioner into events.
var (
	// ErrInvalid: the request can never succeed as it stands.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound: no record of that volume, snapshot or pool.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken by a volume with other properties.
	ErrExists = errors.New("exists with other properties")
	// ErrPathTaken: another volume of the pool has the path.
	ErrPathTaken = errors.New("path taken")
	// ErrNoCapacity: the pool cannot hold that many bytes now.
	ErrNoCapacity = errors.New("not enough capacity")
	// ErrOutOfRange: the size is outside what the backend can ever do.
	ErrOutOfRange = errors.New("size out of range")
	// ErrBusy: another operation on the volume is under way; try again.
	ErrBusy = errors.New("operation under way")
	// ErrInUse: the volume is staged, published or mounted below.
	ErrInUse = errors.New("in use")
	// ErrNotStaged: the volume is not staged where it is to be published from.
	ErrNotStaged = errors.New("not staged")
	// ErrUnsupported: the backend cannot do this at all.
	ErrUnsupported = errors.New("not supported")
	// ErrPoolUnavailable: the pool is not the one that was set up (disk not
	// mounted, another disk mounted, marker missing); nothing was touched.
	ErrPoolUnavailable = errors.New("pool unavailable")
)
