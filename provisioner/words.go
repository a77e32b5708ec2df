package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// sentinel is the reason of a failed volume in the words of driver/volume.
func sentinel(reason string) error {
	switch reason {
	case v1alpha1.ReasonNoCapacity:
		return volume.ErrNoCapacity
	case v1alpha1.ReasonInvalid:
		return volume.ErrOutOfRange
	case v1alpha1.ReasonPathTaken:
		return volume.ErrPathTaken
	case v1alpha1.ReasonPoolUnavailable:
		return volume.ErrPoolUnavailable
	case v1alpha1.ReasonUnsupported:
		return volume.ErrUnsupported
	case v1alpha1.ReasonInUse:
		return volume.ErrInUse
	case v1alpha1.ReasonSourceMissing:
		return volume.ErrNotFound
	}
	return errors.New("failed")
}

// noPlace gives a refusal the sentinel that fits it.
func noPlace(err error) error {
	var refusal *placement.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	for _, m := range []struct {
		reason placement.Reason
		is     error
	}{
		{placement.NoSpace, volume.ErrNoCapacity},
		{placement.JustRefused, volume.ErrNoCapacity},
		{placement.ModeRefused, volume.ErrUnsupported},
		{placement.Unsupported, volume.ErrUnsupported},
		{placement.PoolUnavailable, volume.ErrPoolUnavailable},
	} {
		if refusal.Has(m.reason) {
			return fmt.Errorf("%w: %w", m.is, err)
		}
	}
	return fmt.Errorf("%w: %w", volume.ErrNoCapacity, err)
}

// busy turns the end of a caller's patience into ErrBusy.
func busy(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", volume.ErrBusy, err)
	}
	return err
}

// describe puts a volume in the words of driver/volume.
func describe(v *v1alpha1.PlinthVolume) volume.Volume {
	out := volume.Volume{
		Spec: ledger.MadeAs(v.Spec),
		Name: v.Name, Pool: v.Spec.Pool, From: contentOf(v.Spec.Source), CreatedAt: v.CreationTimestamp.Time,
	}
	out.Attributes = ledger.AttributesOf(v.Status.Attributes)
	out.ID, out.Size, out.Mode, out.FSType = volume.ID(v.Name), v.Spec.Size.Value(), volume.Mode(v.Spec.VolumeMode), v.Spec.FSType
	if v.Spec.Name != "" {
		out.Name = v.Spec.Name
	}
	if v.Status.Size != nil {
		out.Size = v.Status.Size.Value()
	}
	if !v.Spec.Shared {
		out.Node = v.Spec.NodeName
	}
	for _, m := range v.Spec.AccessModes {
		out.AccessModes = append(out.AccessModes, volume.AccessMode(m))
	}
	return out
}

// The keys under which a sidecar names the claim (external-provisioner, --extra-create-metadata).
const (
	labelClaim     = "csi.storage.k8s.io/pvc/name"
	labelNamespace = "csi.storage.k8s.io/pvc/namespace"
)

func intentFor(name string, r volume.Request, place placement.Request, at placement.Choice) *v1alpha1.PlinthVolume {
	v := newVolume(name, place, at)
	if r.Name != name {
		v.Spec.Name = r.Name
	}
	ledger.MakeAs(&v.Spec, r.Spec)
	v.Spec.Source = sourceOf(r.From)
	v.Spec.ClaimName, v.Spec.ClaimNamespace = r.Labels[labelClaim], r.Labels[labelNamespace]
	return v
}

// same says whether v is what r asks for (CSI 1.13, CreateVolume: ALREADY_EXISTS).
func same(v *v1alpha1.PlinthVolume, r volume.Request) error {
	size := v.Spec.Size.Value()
	var fault string
	pools := strings.Split(r.Pool, ",")
	switch {
	case v.Spec.ClaimUID != "":
		fault = "belongs to a claim"
	case size < r.Size || (r.LimitBytes > 0 && size > r.LimitBytes):
		fault = fmt.Sprintf("has %d bytes", size)
	case v.Spec.VolumeMode != string(r.Mode):
		fault = "is a " + v.Spec.VolumeMode + " volume"
	case r.Mode == volume.Filesystem && r.FSType != "" && v.Spec.FSType != r.FSType:
		fault = "has the filesystem " + v.Spec.FSType
	case r.Pool != "" && !slices.ContainsFunc(pools, func(p string) bool { return strings.TrimSpace(p) == v.Spec.Pool }):
		fault = "is in pool " + v.Spec.Pool
	case len(r.Nodes) > 0 && !v.Spec.Shared && !slices.Contains(r.Nodes, v.Spec.NodeName):
		fault = "is on node " + v.Spec.NodeName
	case !madeAlike(ledger.MadeAs(v.Spec), r.Spec):
		fault = "was made with other parameters"
	case contentOf(v.Spec.Source) != r.From:
		fault = "starts with something else"
	case !covers(v.Spec.AccessModes, r.AccessModes):
		fault = "was made for other access modes"
	default:
		return nil
	}
	return fmt.Errorf("%w: volume %s %s", volume.ErrExists, v.Name, fault)
}

// madeAlike compares what volume.Spec.Set sets.
func madeAlike(a, b volume.Spec) bool {
	return a.Thick == b.Thick && (a.OnDelete == volume.Scrub) == (b.OnDelete == volume.Scrub) &&
		slices.Equal(a.MkfsOptions, b.MkfsOptions) && a.Root == b.Root
}

func covers(have []string, want []volume.AccessMode) bool {
	for _, w := range want {
		if !slices.Contains(have, string(w)) {
			return false
		}
	}
	return true
}
