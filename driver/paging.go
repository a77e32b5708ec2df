package driver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
)

// errToken: the starting token of a listing is not one of ours (CSI 1.13,
// ListVolumes, ListSnapshots, ControllerListVolumeHealth: ABORTED tells the
// caller to start again).
var errToken = errors.New("invalid starting token")

// tokenPrefix tells a token from anything else; the ID of the last entry
// listed follows it, so a page starts right also when that one is gone.
const tokenPrefix = "after/"

// listing is how the three listings of CSI are asked for a page.
type listing interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

// page is the part of all that was asked for, in the order of their IDs, and
// the token of what follows; "" if nothing does.
func page[T any](req listing, all []T, id func(T) volume.ID) (part []T, next string, err error) {
	if req.GetMaxEntries() < 0 {
		return nil, "", fmt.Errorf("%w: max_entries %d is negative", volume.ErrInvalid, req.GetMaxEntries())
	}
	after, err := parseToken(req.GetStartingToken())
	if err != nil {
		return nil, "", err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(t T) bool { return id(t) <= after })
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(id(a), id(b)) })
	if n := int(req.GetMaxEntries()); n > 0 && n < len(all) {
		return all[:n], tokenPrefix + string(id(all[n-1])), nil
	}
	return all, "", nil
}

func parseToken(token string) (volume.ID, error) {
	if token == "" {
		return "", nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	id, err := volume.ParseID(after)
	if !ok || err != nil {
		return "", fmt.Errorf("%w: start the listing again without one", errToken)
	}
	return id, nil
}
