package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
)

// snapshotGroup is the API group of VolumeSnapshots.
const snapshotGroup = "snapshot.storage.k8s.io"

// claimKind is what a claim calls another one that it starts with.
const claimKind = "PersistentVolumeClaim"

// errSourceNotReady: what a claim starts with is not there yet. The claim is
// tried again.
var errSourceNotReady = errors.New("the source is not ready")

// source is what a claim's dataSource names, in Plinth's own words; nothing
// for a claim without one. Kinds that are nobody's here are left to their
// volume populators (KEP-1495).
func (p *Provisioner) source(ctx context.Context, claim *corev1.PersistentVolumeClaim) (volume.Content, error) {
	ref := claim.Spec.DataSourceRef
	if ref == nil {
		if claim.Spec.DataSource == nil {
			return volume.Content{}, nil
		}
		d := claim.Spec.DataSource
		ref = &corev1.TypedObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
	}
	if ref.Namespace != nil && *ref.Namespace != "" && *ref.Namespace != claim.Namespace {
		return volume.Content{}, fmt.Errorf("%w: dataSourceRef names the namespace %s; a source has to be in the claim's own", volume.ErrInvalid, *ref.Namespace)
	}
	group := ""
	if ref.APIGroup != nil {
		group = *ref.APIGroup
	}
	switch {
	case group == "" && ref.Kind == claimKind:
		return p.cloneSource(claim.Namespace, ref.Name)
	case group == snapshotGroup && ref.Kind == "VolumeSnapshot":
		return p.restoreSource(ctx, claim.Namespace, ref.Name)
	}
	return volume.Content{}, &controller.IgnoredError{Reason: fmt.Sprintf("dataSource of kind %s is left to its populator", ref.Kind)}
}

func (p *Provisioner) cloneSource(namespace, name string) (volume.Content, error) {
	source := p.lookup.claim(namespace, name)
	if source == nil || source.Status.Phase != corev1.ClaimBound {
		return volume.Content{}, fmt.Errorf("%w: PersistentVolumeClaim %s, to be cloned, is not bound or does not exist", errSourceNotReady, name)
	}
	pv := p.lookup.volume(source.Spec.VolumeName)
	if pv == nil {
		return volume.Content{}, fmt.Errorf("%w: PersistentVolume %s of the claim %s, to be cloned, does not exist", errSourceNotReady, source.Spec.VolumeName, name)
	}
	foreign := fmt.Errorf("%w: PersistentVolumeClaim %s is no volume of %s, so it cannot be cloned here; use a StorageClass of what made it", volume.ErrInvalid, name, p.driver)
	handle, err := p.handle(pv)
	if err != nil {
		return volume.Content{}, foreign
	}
	if _, ok := p.view.Volume(handle); !ok {
		return volume.Content{}, foreign
	}
	return volume.Content{Volume: volume.ID(handle)}, nil
}

func (p *Provisioner) restoreSource(ctx context.Context, namespace, name string) (volume.Content, error) {
	if p.snapshots == nil {
		return volume.Content{}, fmt.Errorf("%w: this controller reads no VolumeSnapshots", volume.ErrInvalid)
	}
	s, err := p.snapshots.bound(ctx, namespace, name)
	if err != nil {
		return volume.Content{}, err
	}
	if s.driver != p.driver {
		return volume.Content{}, fmt.Errorf("%w: VolumeSnapshot %s was taken by %s, and the StorageClass is of %s; use a class of the driver that took it", volume.ErrInvalid, name, s.driver, p.driver)
	}
	id, err := volume.ParseID(s.handle)
	if err != nil {
		return volume.Content{}, fmt.Errorf("VolumeSnapshot %s: %w", name, err)
	}
	return volume.Content{Snapshot: id}, nil
}

// boundSnapshot is a VolumeSnapshot that is ready.
type boundSnapshot struct{ driver, handle string }

// volumeSnapshots reads VolumeSnapshots.
type volumeSnapshots interface {
	// bound returns errSourceNotReady for one that is not there or not ready.
	bound(ctx context.Context, namespace, name string) (boundSnapshot, error)
}

// apiSnapshots reads VolumeSnapshots from the API server, only when a claim
// names one. Its two kinds are not watched: most clusters have none.
type apiSnapshots struct{ rest rest.Interface }

func (a apiSnapshots) bound(ctx context.Context, namespace, name string) (boundSnapshot, error) {
	var s struct {
		Status struct {
			Ready   bool   `json:"readyToUse"`
			Content string `json:"boundVolumeSnapshotContentName"`
		} `json:"status"`
	}
	if err := a.read(ctx, &s, "namespaces", namespace, "volumesnapshots", name); err != nil {
		return boundSnapshot{}, err
	}
	if !s.Status.Ready || s.Status.Content == "" {
		return boundSnapshot{}, fmt.Errorf("%w: VolumeSnapshot %s is not ready to use", errSourceNotReady, name)
	}
	var c struct {
		Spec struct {
			Driver string `json:"driver"`
			Ref    struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"volumeSnapshotRef"`
		} `json:"spec"`
		Status struct {
			Handle string `json:"snapshotHandle"`
		} `json:"status"`
	}
	if err := a.read(ctx, &c, "volumesnapshotcontents", s.Status.Content); err != nil {
		return boundSnapshot{}, err
	}
	if c.Spec.Ref.Namespace != namespace || c.Spec.Ref.Name != name {
		// Whoever may write the status of a VolumeSnapshot must not read others' data by it.
		return boundSnapshot{}, fmt.Errorf("%w: VolumeSnapshotContent %s belongs to another VolumeSnapshot than %s", volume.ErrInvalid, s.Status.Content, name)
	}
	if c.Status.Handle == "" {
		return boundSnapshot{}, fmt.Errorf("%w: VolumeSnapshotContent %s has no snapshot yet", errSourceNotReady, s.Status.Content)
	}
	return boundSnapshot{driver: c.Spec.Driver, handle: c.Status.Handle}, nil
}

func (a apiSnapshots) read(ctx context.Context, into any, path ...string) error {
	what := path[len(path)-2] + " " + path[len(path)-1]
	request := a.rest.Get().AbsPath(append([]string{"/apis", snapshotGroup, "v1"}, path...)...).SetHeader("Accept", "application/json")
	result := request.Do(ctx)
	if err := result.Error(); apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %s does not exist", errSourceNotReady, what)
	} else if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	body, err := result.Raw()
	if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	return nil
}
