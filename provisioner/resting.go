package provisioner

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// remindAfter is how long a claim may rest before its user is told what it
// waits for, and how often it is told again, if that is news.
const remindAfter = 30 * time.Second

// eventWaiting is the reason of that event.
const eventWaiting = "WaitingForNode"

// resting holds the claims whose volume has been written and whose node has
// not answered. The library has forgotten them: that costs no event and no
// back-off, and the answer wakes them.
//
// It also remembers which volumes of this process have no PersistentVolume
// yet. Such a volume has never been given to anybody, so it may be taken back
// when its claim goes, even if it was made by then.
type resting struct {
	mu          sync.Mutex
	claims      map[types.UID]restingClaim
	unpublished map[string]bool
}

type restingClaim struct {
	claim  *corev1.PersistentVolumeClaim
	volume string
	node   string
	since  time.Time
	told   string
}

func newResting() *resting {
	return &resting{claims: map[types.UID]restingClaim{}, unpublished: map[string]bool{}}
}

func (r *resting) put(claim *corev1.PersistentVolumeClaim, v *v1alpha1.PlinthVolume) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims[claim.UID] = restingClaim{claim: claim, volume: v.Name, node: v.Spec.NodeName, since: time.Now()}
}

// has says whether a claim rests: there is nothing to do for it.
func (r *resting) has(uid types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.claims[uid]
	return ok
}

// take says whether a claim rests, and ends that.
func (r *resting) take(uid types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.claims[uid]
	delete(r.claims, uid)
	return ok
}

// writing says that a volume is about to be written, by this process.
func (r *resting) writing(volume string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unpublished[volume] = true
}

// published says that a volume's PersistentVolume is about to be written, or
// that the volume is gone.
func (r *resting) published(volume string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unpublished, volume)
}

// never says whether a volume of this process never had a PersistentVolume.
func (r *resting) never(volume string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unpublished[volume]
}

// takeOn ends the rest of the claims that wait for a node, and returns them.
func (r *resting) takeOn(node string) (taken []types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, c := range r.claims {
		if c.node == node {
			delete(r.claims, uid)
			taken = append(taken, uid)
		}
	}
	return taken
}

// long returns the claims that have rested for so long, and those that have
// rested so long that a wake-up may have been lost, which it takes.
func (r *resting) long() (waiting, lost []restingClaim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, c := range r.claims {
		switch age := time.Since(c.since); {
		case age > netRetry:
			delete(r.claims, uid)
			lost = append(lost, c)
		case age > remindAfter:
			waiting = append(waiting, c)
		}
	}
	return waiting, lost
}

// tell records what the user of a resting claim is told, and says whether
// that is news.
func (r *resting) tell(uid types.UID, message string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.claims[uid]
	if !ok || c.told == message {
		return false
	}
	c.told = message
	r.claims[uid] = c
	return true
}

// remind tells the users of claims that rest for long what they wait for,
// until ctx ends, and wakes those that rest for too long.
func (p *Provisioner) remind(ctx context.Context) {
	tick := time.NewTicker(remindAfter)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		waiting, lost := p.resting.long()
		for _, c := range waiting {
			v, ok := p.view.Volume(c.volume)
			if !ok {
				continue
			}
			if message := p.waitingFor(v); p.resting.tell(c.claim.UID, message) {
				p.events.Event(c.claim, corev1.EventTypeWarning, eventWaiting, message)
			}
		}
		for _, c := range lost {
			p.parked.wake(c.claim.UID)
		}
	}
}
