package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/keeptime"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// onDeleteTrash is the value of parameter onDelete with which a deleted volume
// is kept for a while. No node knows of it: to a node it is a volume like any,
// until it is deleted.
const onDeleteTrash = "trash"

// parseKeep reads parameter trashKeep.
func parseKeep(text string) (time.Duration, error) {
	keep, err := keeptime.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("parameter %s: %w", ParamTrashKeep, err)
	}
	return keep, nil
}

// trashFault says what is wrong with the parameters of the trash together.
func trashFault(parameters map[string]string) error {
	_, keeps := parameters[ParamTrashKeep]
	switch trash := parameters[volume.ParamOnDelete] == onDeleteTrash; {
	case trash && !keeps:
		return fmt.Errorf("parameter %s: %s needs %s, how long a deleted volume is kept, such as 24h or 7d", volume.ParamOnDelete, onDeleteTrash, ParamTrashKeep)
	case keeps && !trash:
		return fmt.Errorf("parameter %s goes with %s: %s alone; add that, or leave it out", ParamTrashKeep, volume.ParamOnDelete, onDeleteTrash)
	}
	return nil
}

// keep is the class's time in the trash as a volume's intent tells it.
func (c *Class) keep() *metav1.Duration {
	if c.Trash == 0 {
		return nil
	}
	return &metav1.Duration{Duration: c.Trash}
}

// throwAway puts a volume into the trash in place of deleting it, once: one that
// somebody has taken out again before its PersistentVolume was gone stays out,
// and so does one that another claim has adopted since.
func (p *Provisioner) throwAway(ctx context.Context, pv *corev1.PersistentVolume, name string) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		v, err := p.view.GetVolume(ctx, name) // the view may be behind
		if err != nil || v.Spec.Retained || v.Spec.TrashKeep == nil {
			return err
		}
		if ref := pv.Spec.ClaimRef; ref != nil && v.Spec.ClaimUID != "" && string(ref.UID) != v.Spec.ClaimUID {
			return nil
		}
		until := metav1.NewTime(time.Now().Add(v.Spec.TrashKeep.Duration + time.Second - 1).Truncate(time.Second)) // the API has whole seconds
		if err := p.view.TrashVolume(ctx, v, until); err != nil {
			return err
		}
		p.log.Info("a deleted volume is kept in the trash", logVolume, v.Name, logNode, v.Spec.NodeName, logUntil, until.UTC().Format(time.RFC3339))
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// trash deletes the volumes whose time in the trash is over. It has one timer,
// to the next of them, and none while the trash is empty. What is in the trash
// is in the ledger, so a restart forgets nothing.
type trash struct {
	view    *ledger.View
	holders func(volume string) bool // has it a PersistentVolume?
	log     *slog.Logger

	mu   sync.Mutex
	due  map[string]time.Time
	stir chan struct{}
}

func newTrash(view *ledger.View, lookup lookups, log *slog.Logger) *trash {
	return &trash{
		view: view, log: log, due: map[string]time.Time{}, stir: make(chan struct{}, 1),
		holders: func(name string) bool { return len(lookup.holders(name)) > 0 },
	}
}

// look takes note of a volume as it is now; it may be gone.
func (t *trash) look(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.view.Volume(name) // not before the lock: of two who look, the later has the newer
	if !ok || v.DeletionTimestamp != nil || v.Spec.TrashedUntil == nil {
		delete(t.due, name)
		return
	}
	t.due[name] = v.Spec.TrashedUntil.Time
	select {
	case t.stir <- struct{}{}:
	default: // it is due already
	}
}

// run works until ctx ends.
func (t *trash) run(ctx context.Context) {
	for _, v := range t.view.Volumes() {
		t.look(v.Name)
	}
	for {
		next := t.empty(ctx)
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-t.stir:
		case <-timer:
		case <-ctx.Done():
			return
		}
	}
}

// empty deletes what is due, and says how long it is to the next; 0 if there
// is none.
func (t *trash) empty(ctx context.Context) time.Duration {
	now := time.Now()
	t.mu.Lock()
	var over []string
	for name, at := range t.due {
		if !at.After(now) {
			over = append(over, name)
		}
	}
	t.mu.Unlock()
	for _, name := range over {
		again := t.expire(ctx, name)
		t.mu.Lock()
		if at, ok := t.due[name]; ok && !at.After(now) { // nobody has looked meanwhile
			if again > 0 {
				t.due[name] = now.Add(again)
			} else {
				delete(t.due, name)
			}
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var next time.Duration
	for _, at := range t.due {
		if left := max(time.Until(at), time.Millisecond); next == 0 || left < next {
			next = left
		}
	}
	return next
}

// expire deletes one volume, and says after how long it is to be tried again; 0
// is not at all. One that has a PersistentVolume is in use, whatever its time:
// it is looked at again when that is gone.
func (t *trash) expire(ctx context.Context, name string) (again time.Duration) {
	v, ok := t.view.Volume(name)
	if !ok || v.DeletionTimestamp != nil || v.Spec.TrashedUntil == nil || v.Spec.TrashedUntil.After(time.Now()) {
		return 0
	}
	if t.holders(name) {
		t.log.Warn("a volume whose time in the trash is over has a PersistentVolume and is kept", logVolume, name)
		return 0
	}
	err := t.view.ExpireVolume(ctx, v)
	if apierrors.IsConflict(err) {
		return firstRetry // the view is behind, but not for long
	}
	if err != nil && ctx.Err() == nil {
		t.log.Warn("a volume whose time in the trash is over is to be deleted later", logVolume, name, logError, err)
		return lastRetry
	}
	t.log.Info("the time of a volume in the trash is over; it is freed", logVolume, name, logNode, v.Spec.NodeName)
	return 0
}
