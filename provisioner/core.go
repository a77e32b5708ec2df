package provisioner

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
	"github.com/plinth-csi/plinth/provisioner/placement"
)

// defaultPatience is how long a worker waits for a node before it turns to another
// claim. A node that has just let a worker wait that long is not waited for
// again until it answers, so a dead node holds up nobody (promise 10).
const defaultPatience = 2 * time.Second

// defaultCallPatience bounds a call of the CSI controller service, whose
// caller may have set no deadline.
const defaultCallPatience = time.Minute

// core makes and deletes volumes through the ledger. It is what the library's
// provisioner and the CSI controller service have in common.
type core struct {
	driver  string
	view    *ledger.View
	picture *picture
	slow    *slowNodes
	// patience is how long a worker waits, callPatience a CSI call.
	patience, callPatience time.Duration
}

// write places a volume and writes its intent. The error is a
// *placement.Refusal where there is no place. Where the name is taken it
// returns the volume that has it.
func (c *core) write(ctx context.Context, r placement.Request, intent func(placement.Choice) *v1alpha1.PlinthVolume) (*v1alpha1.PlinthVolume, placement.Choice, error) {
	at, v, err := c.picture.place(r, intent)
	if err != nil {
		return nil, at, err
	}
	made, err := c.view.CreateVolume(ctx, v)
	if err == nil {
		return made, at, nil
	}
	if apierrors.IsAlreadyExists(err) {
		made, err = c.view.GetVolume(ctx, v.Name)
		return made, placement.Choice{}, err
	}
	c.picture.volumeGone(v)
	return nil, at, err
}

// read finds a volume in the view, or past it: a caller may know of a volume
// before the watch does.
func (c *core) read(ctx context.Context, id volume.ID) (*v1alpha1.PlinthVolume, bool, error) {
	if v, ok := c.view.Volume(string(id)); ok {
		return v, true, nil
	}
	v, err := c.view.GetVolume(ctx, string(id))
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("volume %s: %w", id, volume.ErrNotFound)
	}
	return v, false, err
}

// await waits for v until done says true of it (of nil once it is gone), at
// most for limit, and returns it as last seen. cached says that v came from
// the view, so that its absence there means that it is gone and not that the
// watch is behind.
func (c *core) await(ctx context.Context, v *v1alpha1.PlinthVolume, cached bool, limit time.Duration, done func(*v1alpha1.PlinthVolume) bool) (*v1alpha1.PlinthVolume, error) {
	node := v.Spec.NodeName
	if c.slow.is(node) {
		limit = 0
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	seen := cached
	now, err := c.view.Until(short, v.Name, func(now *v1alpha1.PlinthVolume) bool {
		if now == nil && !seen {
			return false
		}
		seen = true
		return done(now)
	})
	if err == nil {
		return now, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("waiting for node %s: %w", node, ctx.Err())
	}
	c.slow.add(node)
	if now == nil && !seen {
		return v, nil
	}
	return now, nil
}

// The states of a volume that matter to whoever waits for it.

func gone(v *v1alpha1.PlinthVolume) bool { return v == nil }

// ready: made, and where it must be found for its type.
func ready(v *v1alpha1.PlinthVolume) bool {
	return v.DeletionTimestamp == nil && v.Status.Phase == v1alpha1.VolumeReady && v.Status.Size != nil &&
		(v.Spec.VolumeType == v1alpha1.VolumeTypeCSI || v.Status.Path != "")
}

// refused: its node cannot make it, and never did.
func refused(v *v1alpha1.PlinthVolume) bool {
	return v.DeletionTimestamp == nil && v.Status.Phase == v1alpha1.VolumeFailed && v.Status.Size == nil
}

func settled(v *v1alpha1.PlinthVolume) bool { return v == nil || ready(v) || refused(v) }

// elsewhere says whether another node might succeed where this one failed.
func elsewhere(v *v1alpha1.PlinthVolume) bool {
	return v.Status.Reason == v1alpha1.ReasonNoCapacity || v.Status.Reason == v1alpha1.ReasonPoolUnavailable
}

// because is the node's own message, to be appended to a sentence.
func because(v *v1alpha1.PlinthVolume) string {
	if v.Status.Message == "" {
		return ""
	}
	return ": " + v.Status.Message
}

// waitingFor says what the claim of an unsettled volume waits for. It is never
// tried on another node while nobody knows what that one has done (promise 9),
// unless that was declared gone.
func (c *core) waitingFor(v *v1alpha1.PlinthVolume) string {
	todo := "make the volume in pool " + v.Spec.Pool
	if v.DeletionTimestamp != nil {
		todo = "clear an earlier attempt away"
	}
	if state := c.picture.away(v.Spec.NodeName); state != "" {
		return fmt.Sprintf("waiting for node %s to %s; the node %s%s", v.Spec.NodeName, todo, state, because(v))
	}
	return fmt.Sprintf("waiting for node %s to %s%s", v.Spec.NodeName, todo, because(v))
}

// slowNodes are those that have let a worker wait for nothing.
type slowNodes struct {
	mu    sync.Mutex
	nodes map[string]bool
}

func (s *slowNodes) is(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[node]
}

func (s *slowNodes) add(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = map[string]bool{}
	}
	s.nodes[node] = true
}

func (s *slowNodes) answered(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, node)
}
