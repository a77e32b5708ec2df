package provisioner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/bytesize"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// order is what one claim asks for: its class, read, and what that means for
// a place.
type order struct {
	name  string // of the PersistentVolume
	claim *corev1.PersistentVolumeClaim
	class Class
	sc    *storagev1.StorageClass
	place placement.Request
	from  volume.Content // what it starts with
	// volume is the name of its new PlinthVolume: the PersistentVolume's, unless
	// one of that name was lost before it was made (see successor).
	volume string
	// adopts is the PlinthVolume that the claim is to have, "" for a new one.
	adopts string
	// attributes are those of the claim's VolumeAttributesClass.
	attributes volume.Attributes
	// anchored: what it starts with is on one node, so there is no other.
	anchored bool
}

// read makes an order of a claim and its class, or says what cannot be
// honoured in any place. node is the one that the scheduler chose, or "".
func read(driver, name string, claim *corev1.PersistentVolumeClaim, sc *storagev1.StorageClass, node string) (order, error) {
	class, err := ParseClass(sc)
	if err != nil {
		return order{}, err
	}
	o := order{name: name, volume: name, claim: claim, class: class, sc: sc, adopts: claim.Annotations[AnnotationAdopt]}
	o.place = placement.Request{
		Size:       sizeOf(claim),
		Mode:       volume.Filesystem,
		FSType:     class.FSType,
		Pinned:     class.Type == v1alpha1.VolumeTypeLocal,
		Pools:      class.Pools,
		Topologies: class.Topologies,
		Needs:      class.needs(),
		Mkfs:       len(class.Make.MkfsOptions) > 0,
		Key:        TopologyKey(driver),
	}
	if claim.Spec.VolumeMode != nil {
		o.place.Mode = volume.Mode(*claim.Spec.VolumeMode)
	}
	if o.place.Mode == volume.Block {
		o.place.FSType = ""
	}
	for _, m := range claim.Spec.AccessModes {
		o.place.AccessModes = append(o.place.AccessModes, volume.AccessMode(m))
	}
	if node != "" {
		o.place.Nodes = []string{node}
	}
	if faults := o.faults(); len(faults) > 0 {
		return order{}, fmt.Errorf("%w: %s", volume.ErrInvalid, sentence(faults))
	}
	return o, nil
}

// faults are what no pool could honour. Whatever is not made as asked is
// refused: an empty volume in place of a restored one would be a lie.
func (o *order) faults() []error {
	var f []error
	spec := &o.claim.Spec
	if o.place.Mode == volume.Block && o.class.Type != v1alpha1.VolumeTypeCSI {
		f = append(f, fmt.Errorf("volumeMode Block cannot be volumeType %s; use a StorageClass with volumeType csi", o.class.Type))
	}
	if o.class.Type == v1alpha1.VolumeTypeHostPath && onlyRead(o.place.AccessModes) {
		where := "in any pool"
		if len(o.place.Pools) > 0 {
			where = "in pool " + strings.Join(o.place.Pools, " or ")
		}
		f = append(f, fmt.Errorf("accessMode ReadOnlyMany cannot be volumeType hostPath %s, for nothing would keep its pods from writing; use a StorageClass with volumeType csi, or ReadWriteMany and readOnly in the pods", where))
	}
	if o.place.Mode == volume.Block && o.class.Make.Root != (volume.Root{}) {
		f = append(f, fmt.Errorf("volumeMode Block has no root directory for parameters %s and %s; use a StorageClass without them", volume.ParamMode, volume.ParamOwner))
	}
	if o.place.Mode == volume.Block && len(o.class.Make.MkfsOptions) > 0 {
		f = append(f, fmt.Errorf("volumeMode Block has no filesystem for parameter %s; use a StorageClass without it", volume.ParamMkfsOptions))
	}
	if o.place.Size <= 0 {
		f = append(f, errors.New("spec.resources.requests.storage must be more than zero"))
	}
	if o.adopts != "" && (spec.DataSource != nil || spec.DataSourceRef != nil) {
		f = append(f, fmt.Errorf("annotation %s takes a volume with its data, and dataSource asks for a copy; leave one of them out", AnnotationAdopt))
	}
	if spec.Selector != nil {
		f = append(f, errors.New("spec.selector cannot be honoured for a new volume; leave it out"))
	}
	if _, err := o.path(); err != nil {
		f = append(f, err)
	}
	return f
}

// path is where the order's volume is to be found; "" for one that its claim
// adopts, which keeps the path that it has.
func (o *order) path() (volume.Path, error) {
	if o.class.Path == "" || o.adopts != "" {
		return "", nil
	}
	return o.class.Path.expand(o.claim.Namespace, o.claim.Name, cmp.Or(o.name, volumeName(o.claim.UID)))
}

// onlyRead says whether nobody is ever to write to a volume.
func onlyRead(modes []volume.AccessMode) bool {
	return len(modes) > 0 && !slices.ContainsFunc(modes, func(m volume.AccessMode) bool { return m != volume.ReadOnlyMany })
}

// intent is the PlinthVolume for an order that has a place.
func (o *order) intent(at placement.Choice) *v1alpha1.PlinthVolume {
	v := newVolume(o.volume, o.place, at)
	spec := o.class.Make
	spec.Attributes = o.attributes
	ledger.MakeAs(&v.Spec, spec)
	v.Spec.VolumeType = o.class.Type
	v.Spec.ClaimNamespace, v.Spec.ClaimName, v.Spec.ClaimUID = o.claim.Namespace, o.claim.Name, string(o.claim.UID)
	v.Spec.StorageClassName, v.Spec.TrashKeep = o.sc.Name, o.class.keep()
	v.Spec.Source = sourceOf(o.from)
	path, _ := o.path() // read has refused an order that has none to give
	v.Spec.Path = string(path)
	return v
}

// AnnotationPlaced says, for people, why a volume is where it is.
const AnnotationPlaced = "plinth.dev/placed"

func newVolume(name string, r placement.Request, at placement.Choice) *v1alpha1.PlinthVolume {
	v := &v1alpha1.PlinthVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Finalizers:  []string{v1alpha1.Finalizer},
			Annotations: map[string]string{AnnotationPlaced: placed(at)},
		},
		Spec: v1alpha1.PlinthVolumeSpec{
			NodeName: at.Node, Pool: at.Pool, Shared: at.Shared,
			Size:       *resource.NewQuantity(r.Size, resource.BinarySI),
			VolumeMode: string(r.Mode),
			FSType:     at.FSType,
			VolumeType: v1alpha1.VolumeTypeCSI,
		},
	}
	for _, m := range r.AccessModes {
		v.Spec.AccessModes = append(v.Spec.AccessModes, string(m))
	}
	return v
}

func placed(at placement.Choice) string {
	if at.Among == 1 {
		return fmt.Sprintf("pool %s (%s) on node %s, with %s free", at.Pool, at.Backend, at.Node, bytesize.Format(at.Free))
	}
	return fmt.Sprintf("pool %s (%s) on node %s, with %s free the best of %d pools that could hold it", at.Pool, at.Backend, at.Node, bytesize.Format(at.Free), at.Among)
}

func sizeOf(claim *corev1.PersistentVolumeClaim) int64 {
	request := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return request.Value()
}

// TopologyKey is the one topology key of a driver: a node's own name.
func TopologyKey(driver string) string { return driver + "/node" }
