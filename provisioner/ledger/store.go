package ledger

import (
	"context"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// Store is what View needs of the ledger; Client and Memory are it. All
// methods may be called from many goroutines; errors are those of the API
// server's package errors.
type Store interface {
	// CreateVolume answers AlreadyExists where the name is taken.
	CreateVolume(ctx context.Context, v *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, error)
	// GetVolume reads past any cache; NotFound where it is absent.
	GetVolume(ctx context.Context, name string) (*v1alpha1.PlinthVolume, error)
	// ResizeVolume may be repeated; below the size that holds it is refused.
	ResizeVolume(ctx context.Context, v *v1alpha1.PlinthVolume, size resource.Quantity) (*v1alpha1.PlinthVolume, error)
	// ModifyVolume may be repeated.
	ModifyVolume(ctx context.Context, v *v1alpha1.PlinthVolume, to v1alpha1.VolumeAttributes) (*v1alpha1.PlinthVolume, error)
	// AssignVolume answers Conflict if v is not the newest.
	AssignVolume(ctx context.Context, v *v1alpha1.PlinthVolume, to Holder) (*v1alpha1.PlinthVolume, error)
	// MoveVolume gives a volume of a shared pool to another node.
	MoveVolume(ctx context.Context, v *v1alpha1.PlinthVolume, node string) error
	// HoldVolume adds Plinth's finalizer; Conflict if v is not the newest.
	HoldVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error
	// TrashVolume answers Conflict if v is not the newest.
	TrashVolume(ctx context.Context, v *v1alpha1.PlinthVolume, until metav1.Time) error
	// ExpireVolume answers Conflict if v is not the newest; an absent object is nil.
	ExpireVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error
	// DeleteVolume may be repeated; an absent object is nil.
	DeleteVolume(ctx context.Context, v *v1alpha1.PlinthVolume) error
	// CreateSnapshot answers AlreadyExists where the name is taken.
	CreateSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) (*v1alpha1.PlinthSnapshot, error)
	// GetSnapshot reads past any cache; NotFound where it is absent.
	GetSnapshot(ctx context.Context, name string) (*v1alpha1.PlinthSnapshot, error)
	// MoveSnapshot gives a snapshot in a shared pool to another node.
	MoveSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot, node string) error
	// DeleteSnapshot may be repeated; an absent object is nil.
	DeleteSnapshot(ctx context.Context, s *v1alpha1.PlinthSnapshot) error
	// OwnNode replaces the owners of a PlinthNode.
	OwnNode(ctx context.Context, n *v1alpha1.PlinthNode, owner metav1.OwnerReference) error
	// WatchVolumes, WatchSnapshots and WatchNodes take "" for all.
	WatchVolumes(node string) cache.ListerWatcher
	WatchSnapshots(node string) cache.ListerWatcher
	WatchNodes(name string) cache.ListerWatcher
}

// Holder is the claim that has a volume, or had it last if it is retained.
type Holder struct {
	Namespace, Name, UID, Class string
	Retained                    bool
	TrashKeep                   *metav1.Duration // as in its class; nil for none
}

var (
	_ Store = (*Client)(nil)
	_ Store = (*Memory)(nil)
)
