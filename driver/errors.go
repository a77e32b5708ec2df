package driver

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/plinth-csi/plinth/driver/volume"
)

// code is the one table from what went wrong to what CSI calls it (CSI 1.13,
// "Error Scheme" and the table of each RPC). An error that wraps none of these
// is a fault of ours or of the machine.
func code(err error) codes.Code {
	for _, row := range [...]struct {
		err  error
		code codes.Code
	}{
		{volume.ErrInvalid, codes.InvalidArgument},
		{volume.ErrUnsupported, codes.InvalidArgument},
		{volume.ErrNotFound, codes.NotFound},
		{volume.ErrExists, codes.AlreadyExists},
		{volume.ErrPathTaken, codes.AlreadyExists},
		{volume.ErrOutOfRange, codes.OutOfRange},
		{volume.ErrNoCapacity, codes.ResourceExhausted},
		{volume.ErrBusy, codes.Aborted},
		{volume.ErrInUse, codes.FailedPrecondition},
		{volume.ErrPoolUnavailable, codes.Unavailable},
		{errToken, codes.Aborted},
		{volume.ErrNotStaged, codes.FailedPrecondition},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return codes.Internal
}

// toStatus is err as a gRPC status; one that is a status already, such as
// Unimplemented from the generated code, stays what it is.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code(err), err.Error())
}
