package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/volume"
)

// problems is what is wrong with volumes of a pool that serves: one line per
// volume or file, shown in the pool's status.
type problems struct {
	mu    sync.Mutex
	lines map[string]string
}

func (p *problems) set(about, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lines == nil {
		p.lines = map[string]string{}
	}
	p.lines[about] = line
}

func (p *problems) clear(about string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lines, about)
}

// shown bounds how many problems a status message spells out.
const shown = 3

func (p *problems) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, about := range slices.Sorted(maps.Keys(p.lines)) {
		out = append(out, p.lines[about])
	}
	return out
}

// report is what is wrong in the pool, for its status: with volumes, and with
// what its backend works on.
func (p *pool) report(ctx context.Context) string {
	out := p.problems.all()
	if r, ok := p.backend.(backend.Reporter); ok {
		out = append(out, r.Problems(ctx)...)
	}
	if more := len(out) - shown; more > 0 {
		out = append(out[:shown], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, "; ")
}

// recoverPatience is how long opening a pool waits for removals that were cut.
// They go on in the background.
const recoverPatience = 2 * time.Second

// recover finishes or undoes what a cut left. A volume that was being made is
// undone: nobody was told of it, and whoever wants it asks again. One that was
// being deleted is deleted, one that was growing grows. What fails keeps its
// record and its reservation, is shown, and is tried again at the next start
// or request. It never stops a pool from serving its other volumes.
func (p *pool) recover(ctx context.Context) {
	entries, err := p.records.all()
	if err != nil {
		p.problem("records", "the records cannot be read", err)
		return
	}
	infos, err := p.backend.List(ctx)
	if err != nil {
		p.problem("volumes", "the volumes cannot be listed", err)
		return
	}
	there := map[volume.ID]volume.Info{}
	for _, i := range infos {
		there[i.ID] = i
	}
	patient, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	for _, e := range entries {
		p.recoverOne(ctx, patient, e, there)
		delete(there, e.Spec.ID)
	}
	// What is left has no record: it may be anybody's. In a shared pool
	// another node may be about to remove or to make it.
	if !p.cfg.Shared {
		for _, id := range slices.Sorted(maps.Keys(there)) {
			p.problem("data "+string(id), fmt.Sprintf("volume %s has data and no record; it is left alone", id), nil)
		}
	}
	for _, file := range p.records.strays {
		p.problem("file "+file, fmt.Sprintf("%s is no record; it is left alone", file), nil)
	}
}

func (p *pool) recoverOne(ctx, patient context.Context, e entry, there map[volume.ID]volume.Info) {
	id := e.Spec.ID
	if e.broken != "" {
		p.problem(string(id), fmt.Sprintf("volume %s is unavailable and is left alone: its record cannot be used (%s)", id, e.broken), nil)
		return
	}
	if _, ok := there[id]; !ok && e.State == ready { // growing it would make an empty one
		p.problem(string(id), fmt.Sprintf("volume %s has a record and no data; restore the data, or delete the volume", id), nil)
		return
	}
	if e.State == ready && !e.changing() {
		return
	}
	release, err := p.lockVolume(id)
	if errors.Is(err, volume.ErrBusy) {
		return // another node is at work on it
	}
	if err == nil {
		var now entry
		if now, err = p.records.get(id); err == nil {
			e = now // that nobody else changes it
		}
	}
	switch {
	case err != nil:
		p.unfinished(e.record, err)
	case e.broken != "" || e.State == ready && !e.changing():
	case e.State == ready:
		p.log.Info("finishing what was cut", logVolume, id, logState, string(e.State))
		if err := p.finishChanges(ctx, e.record); err != nil {
			p.unfinished(e.record, err)
		}
	default:
		p.log.Info("finishing what was cut", logVolume, id, logState, string(e.State))
		p.resumeRemoval(patient, e.record, release)
		return
	}
	if release != nil {
		release()
	}
}

// finishChanges ends a growth, and a change of attributes, that were cut.
func (p *pool) finishChanges(ctx context.Context, r record) (err error) {
	if r.GrowTo > 0 {
		if r, err = p.grow(ctx, r); err != nil {
			return err
		}
	}
	if r.ModifyTo != nil {
		_, err = p.applyModify(ctx, r)
	}
	return err
}

// unfinished shows that what a record says is under way could not be ended.
func (p *pool) unfinished(r record, err error) {
	if !errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrInUse) {
		p.problem(string(r.Spec.ID), fmt.Sprintf("volume %s (%s): unfinished work failed", r.Spec.ID, r.State), err)
	}
}

func (p *pool) problem(about, line string, err error) {
	if err != nil {
		line += ": " + err.Error()
	}
	p.problems.set(about, line)
	p.log.Warn("problem in pool", logProblem, line)
}
