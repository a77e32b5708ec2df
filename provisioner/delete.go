package provisioner

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Delete implements controller.Provisioner. It returns nil once the node has
// freed the bytes and the PlinthVolume is gone, or once that is marked if its
// node is (see lost), or once the volume is in the trash. Where that takes long the
// call is ignored, which costs no event and no back-off, and the end of the
// PlinthVolume wakes the PersistentVolume.
func (p *Provisioner) Delete(ctx context.Context, pv *corev1.PersistentVolume) error {
	name, err := p.handle(pv)
	if err != nil {
		return err
	}
	v, cached := p.view.Volume(name)
	if !cached {
		// Absence is worth asking about: a view that is behind would leak the volume.
		if v, err = p.view.GetVolume(ctx, name); apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := contradicts(pv, v); err != nil {
		return fmt.Errorf("%w: %w; so it is not what PersistentVolume %s stands for, and is not deleted with it; set the reclaim policy to Retain and delete the PersistentVolume", volume.ErrInvalid, err, pv.Name)
	}
	if v.DeletionTimestamp == nil && v.Spec.TrashKeep != nil && v.Status.Size != nil {
		return p.throwAway(ctx, pv, name)
	}
	if v.DeletionTimestamp == nil {
		if err := p.view.DeleteVolume(ctx, v); err != nil {
			return err
		}
	}
	if p.lost(v) {
		return nil
	}
	if v, err = p.await(ctx, v, cached, p.patience, gone); err != nil || gone(v) {
		return err
	}
	p.freeing.add(name, pv.Name)
	if _, there := p.view.Volume(name); !there || p.lost(v) {
		p.freeing.take(name)
		return nil
	}
	return &controller.IgnoredError{Reason: fmt.Sprintf("node %s is still freeing it%s", v.Spec.NodeName, because(v))}
}

// handle is the name of the PlinthVolume behind a PersistentVolume.
func (p *Provisioner) handle(pv *corev1.PersistentVolume) (string, error) {
	name := volumeBehind(p.driver, pv)
	if name == "" {
		return "", &controller.IgnoredError{Reason: "another driver made it"}
	}
	id, err := volume.ParseID(name)
	if err != nil {
		return "", fmt.Errorf("PersistentVolume %s names no volume: %w; set its reclaim policy to Retain and delete it", pv.Name, err)
	}
	for _, other := range p.lookup.holders(name) {
		if other.Name != pv.Name {
			return "", fmt.Errorf("%w: volume %s is behind the PersistentVolume %s, too, and not for %s to delete; set this one's reclaim policy to Retain and delete it", volume.ErrInUse, name, other.Name, pv.Name)
		}
	}
	return string(id), nil
}

// freeing are the PersistentVolumes that wait for the end of a PlinthVolume.
type freeing struct {
	mu      sync.Mutex
	waiting map[string]map[string]bool // by the PlinthVolume's name
}

func (f *freeing) add(volume, pv string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = map[string]map[string]bool{}
	}
	if f.waiting[volume] == nil {
		f.waiting[volume] = map[string]bool{}
	}
	f.waiting[volume][pv] = true
}

// take returns the names of those that wait for volume and forgets them.
func (f *freeing) take(volume string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for pv := range f.waiting[volume] {
		out = append(out, pv)
	}
	delete(f.waiting, volume)
	return out
}
