package provisioner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// The annotations of adoption.
const (
	AnnotationAdopt    = v1alpha1.AnnotationAdopt
	AnnotationAdopters = v1alpha1.AnnotationAdopters
)

// adopt gives an order the retained volume that its claim names.
func (p *Provisioner) adopt(ctx context.Context, w *order) (*v1alpha1.PlinthVolume, bool, error) {
	v, cached, err := p.adoptable(ctx, w)
	if err != nil || v.Spec.ClaimUID == string(w.claim.UID) {
		return v, cached, err
	}
	if c := p.lookup.claim(w.claim.Namespace, w.claim.Name); c == nil || c.UID != w.claim.UID {
		return nil, false, errClaimGone
	}
	v, err = p.view.AssignVolume(ctx, v, ledger.Holder{
		Namespace: w.claim.Namespace, Name: w.claim.Name, UID: string(w.claim.UID), Class: w.sc.Name, TrashKeep: w.class.keep(),
	})
	return v, false, err
}

// adoptable is the volume that an order's claim names, if the claim may have
// it: ErrInUse while another has it, ErrInvalid or ErrOutOfRange if it is not
// what the claim asks for. It keeps the order to the volume's place.
func (p *Provisioner) adoptable(ctx context.Context, w *order) (*v1alpha1.PlinthVolume, bool, error) {
	id, err := volume.ParseID(w.adopts)
	if err != nil {
		return nil, false, fmt.Errorf("annotation %s: %w", AnnotationAdopt, err)
	}
	v, cached, err := p.read(ctx, id)
	if err != nil {
		return nil, false, fmt.Errorf("annotation %s: %w", AnnotationAdopt, err)
	}
	if v.Spec.ClaimUID == string(w.claim.UID) && !v.Spec.Retained {
		w.anchored = !v.Spec.Shared
		return v, cached, nil
	}
	if err := p.mayAdopt(w, v); err != nil {
		return nil, false, fmt.Errorf("volume %s cannot be adopted: %w", v.Name, err)
	}
	at := contentIn(v)
	at.size = 0 // a smaller claim may have it
	if err := at.keepTo(&w.place); err != nil {
		return nil, false, fmt.Errorf("volume %s cannot be adopted: %w", v.Name, err)
	}
	w.anchored = !v.Spec.Shared
	return v, cached, nil
}

// mayAdopt checks all but the place.
func (p *Provisioner) mayAdopt(w *order, v *v1alpha1.PlinthVolume) error {
	// Whether a volume of another namespace is there at all is not for everybody to know.
	if !adopter(v, w.claim.Namespace) {
		return fmt.Errorf("%w: no retained volume of that name is for namespace %s; an administrator can allow it with the annotation %s on the PlinthVolume", volume.ErrInvalid, w.claim.Namespace, AnnotationAdopters)
	}
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("%w: it is being deleted", volume.ErrInvalid)
	case v.Spec.ReleaseTo != "":
		return fmt.Errorf("%w: it is released, to the directory %s of pool %s", volume.ErrInvalid, v.Spec.ReleaseTo, v.Spec.Pool)
	case len(p.lookup.holders(v.Name)) > 0:
		return fmt.Errorf("%w: PersistentVolume %s has it; delete that one first, with reclaim policy Retain", volume.ErrInUse, p.lookup.holders(v.Name)[0].Name)
	case !v.Spec.Retained || v.Status.Size == nil:
		return fmt.Errorf("%w: the claim %s/%s has it", volume.ErrInUse, v.Spec.ClaimNamespace, v.Spec.ClaimName)
	case v.Status.Size.Value() < w.place.Size:
		return fmt.Errorf("%w: it has %s, and %s are asked for; ask for as much or less, and expand the claim later", volume.ErrOutOfRange, bytesize.Format(v.Status.Size.Value()), bytesize.Format(w.place.Size))
	case v.Spec.VolumeType != w.class.Type:
		return fmt.Errorf("%w: it is of volumeType %s, and the StorageClass makes %s", volume.ErrInvalid, v.Spec.VolumeType, w.class.Type)
	case w.class.Make.OnDelete == volume.Scrub && v.Spec.OnDelete != string(volume.Scrub):
		return fmt.Errorf("%w: it was made without %s: %s, which the StorageClass promises; use a class without it", volume.ErrInvalid, volume.ParamOnDelete, volume.Scrub)
	case w.class.Make.Thick && !v.Spec.Thick:
		return fmt.Errorf("%w: it was made without %s: thick, which the StorageClass promises; use a class without it", volume.ErrInvalid, volume.ParamProvisioning)
	case w.attributesClass() != nil && w.attributes != ledger.AttributesOf(v.Status.Attributes):
		return fmt.Errorf("%w: it has other attributes than VolumeAttributesClass %s; adopt it without one, and give it one then", volume.ErrInvalid, *w.attributesClass())
	case !v.Spec.Shared && slices.ContainsFunc(w.place.AccessModes, severalNodes):
		return fmt.Errorf("%w: it is on one node and cannot be used from several", volume.ErrInvalid)
	}
	return nil
}

func severalNodes(m volume.AccessMode) bool {
	return m == volume.ReadWriteMany || m == volume.ReadOnlyMany
}

// adopter says whether claims of a namespace may have a volume.
func adopter(v *v1alpha1.PlinthVolume, namespace string) bool {
	if v.Spec.ClaimNamespace == namespace {
		return true
	}
	for allowed := range strings.SplitSeq(v.Annotations[AnnotationAdopters], ",") {
		if strings.TrimSpace(allowed) == namespace {
			return true
		}
	}
	return false
}
