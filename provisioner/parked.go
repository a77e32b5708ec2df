package provisioner

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// settle is how long changes of the nodes are gathered before the claims that
// have no place are looked at again.
const settle = 200 * time.Millisecond

// parked holds the claims that cannot go on until something changes: their
// StorageClass (all of them), or the space and the pools of the nodes (those
// with a request).
type parked struct {
	fits func(placement.Request) bool
	wake func(types.UID)

	mu     sync.Mutex
	claims map[types.UID]parkedClaim
	stir   chan struct{}
}

type parkedClaim struct {
	class      string
	attributes string             // its VolumeAttributesClass, "" for none
	request    *placement.Request // nil: only another class can help
	path       volume.Path        // another volume has it; "" if that is not the fault
	told       string             // what its user was told last
}

func newParked(fits func(placement.Request) bool, wake func(types.UID)) *parked {
	return &parked{fits: fits, wake: wake, claims: map[types.UID]parkedClaim{}, stir: make(chan struct{}, 1)}
}

// put parks a claim with what was told to its user, and says whether that is
// news. request is nil where no place could help.
func (p *parked) put(claim *corev1.PersistentVolumeClaim, class string, request *placement.Request, told string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.claims[claim.UID]
	p.claims[claim.UID] = parkedClaim{class: class, attributes: attributesClassOf(claim), request: request, told: told}
	if request != nil {
		p.nodesChanged() // they may have, since the request was refused
	}
	return !known || before.told != told
}

// drop forgets a claim that is gone or has a volume.
func (p *parked) drop(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claims, uid)
}

// classChanged wakes the claims of a class that was made, changed or removed.
func (p *parked) classChanged(class string) {
	p.release(func(c parkedClaim) bool { return c.class == class })
}

// attributesChanged wakes the claims with a VolumeAttributesClass that was
// made, changed or removed.
func (p *parked) attributesChanged(name string) {
	p.release(func(c parkedClaim) bool { return c.attributes == name })
}

// awaitPath parks a claim until the volume that has its path, or one that is
// in its way, is gone.
func (p *parked) awaitPath(claim *corev1.PersistentVolumeClaim, class string, path volume.Path, told string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims[claim.UID] = parkedClaim{class: class, attributes: attributesClassOf(claim), path: path, told: told}
}

// pathFree wakes the claims that may have a path now.
func (p *parked) pathFree(path volume.Path) {
	p.release(func(c parkedClaim) bool { return c.path != "" && c.path.Clashes(path) })
}

// nodesChanged has the claims without a place looked at soon.
func (p *parked) nodesChanged() {
	select {
	case p.stir <- struct{}{}:
	default: // it is due already
	}
}

// run wakes the claims for which a place appears, until ctx ends. It wakes
// those alone: to try and refuse the others again would cost an event each.
func (p *parked) run(ctx context.Context) {
	for {
		select {
		case <-p.stir:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return
		}
		p.release(func(c parkedClaim) bool { return c.request != nil && p.fits(*c.request) })
	}
}

func (p *parked) release(which func(parkedClaim) bool) {
	p.mu.Lock()
	var due []types.UID
	for uid, c := range p.claims {
		if which(c) {
			delete(p.claims, uid)
			due = append(due, uid)
		}
	}
	p.mu.Unlock()
	for _, uid := range due {
		p.wake(uid)
	}
}
