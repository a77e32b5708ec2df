// Package schedule takes the snapshots of a schedule: one Run is one run of a
// CronJob. It makes a VolumeSnapshot of each claim that a selector finds, waits
// until they are ready, and deletes those of its own that are too many or too
// old. It works through the API server alone, with the rights of its pod.
//
// A schedule that fails deletes nothing good: of a claim whose new snapshot is
// not ready, all snapshots stay, and the newest that is ready always does.
package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
)

// The labels of a snapshot that a schedule took. Without the first it is no
// schedule's any more, and stays until somebody deletes it.
const (
	LabelSchedule = "plinth.dev/schedule"
	LabelClaimUID = "plinth.dev/claim-uid" // a claim that is made anew under its old name is another
	LabelClaim    = "plinth.dev/claim"     // for people; not there if the name is too long for a label
)

var (
	// ErrInvalid is of a Config that can never work: nothing was done, and to
	// try it again is of no use.
	ErrInvalid = errors.New("no such schedule can be")
	// ErrFailed is of a run of which something did not become what it should.
	ErrFailed = errors.New("the run failed")
)

// errNotReady is of a snapshot that is not ready when the time is over.
var errNotReady = errors.New("not ready")

// Config is a schedule.
type Config struct {
	Name       string   // a DNS label; snapshots carry it
	Driver     string   // claims of other drivers are left alone
	Namespaces []string // of the claims, and so of their snapshots
	// AllNamespaces has to be said: no namespaces are a mistake.
	AllNamespaces bool
	// Selector is a label selector of claims; it has to select by something.
	Selector string
	Class    string        // the VolumeSnapshotClass; "" is the cluster's default for the driver
	Keep     int           // how many snapshots of a claim stay; at least 1
	KeepFor  time.Duration // snapshots older than this go; 0 is no limit
	Timeout  time.Duration // how long the run waits for what it makes
	// CopyWith names the CronJob, beside the claim and suspended, whose Job copies
	// each snapshot once it is ready; "" copies none.
	CopyWith string
	// JobNamespace and Job name the Job of this run, whose pods, the second
	// try too, work for one scheduled time. Without it the time is now.
	JobNamespace, Job string

	Client dynamic.Interface
	Log    *slog.Logger
	Now    func() time.Time // nil is time.Now
}

// Schedule is a Config that can work.
type Schedule struct {
	Config
	objects  objects
	selector labels.Selector
}

// New checks a Config: ErrInvalid.
func New(cfg Config) (*Schedule, error) {
	selector, err := labels.Parse(cfg.Selector)
	fault := ""
	switch {
	case len(validation.IsDNS1123Label(cfg.Name)) > 0:
		fault = fmt.Sprintf("name %q is no DNS label, such as hourly", cfg.Name)
	case cfg.AllNamespaces && len(cfg.Namespaces) > 0:
		fault = "it has namespaces, and all namespaces; say one of them"
	case !cfg.AllNamespaces && len(cfg.Namespaces) == 0:
		fault = "it has no namespaces; name them, or say that all are meant"
	case slices.ContainsFunc(cfg.Namespaces, func(n string) bool { return len(validation.IsDNS1123Label(n)) > 0 }):
		fault = fmt.Sprintf("one of the namespaces %q cannot be one", cfg.Namespaces)
	case err != nil:
		fault = fmt.Sprintf("selector %q: %v", cfg.Selector, err)
	case selector.Empty():
		fault = "its selector is empty; say by a label which claims are meant, such as app=db"
	case cfg.Keep < 1:
		fault = fmt.Sprintf("keep is %d; at least 1 snapshot of a claim stays", cfg.Keep)
	case cfg.KeepFor < 0 || cfg.Timeout <= 0:
		fault = fmt.Sprintf("times are positive, not %v and %v", cfg.KeepFor, cfg.Timeout)
	case (cfg.Job == "") != (cfg.JobNamespace == ""):
		fault = "a Job is named with its namespace"
	case cfg.Driver == "" || cfg.Client == nil || cfg.Log == nil:
		fault = "driver, client or log is missing"
	}
	if fault != "" {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, fault)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	namespaces := slices.Clone(cfg.Namespaces)
	slices.Sort(namespaces)
	cfg.Namespaces = slices.Compact(namespaces)
	cfg.Log = cfg.Log.With("schedule", cfg.Name)
	return &Schedule{Config: cfg, objects: objects{cfg.Client}, selector: selector}, nil
}

// task is what a run has to do for one claim.
type task struct {
	claim  *claim
	name   string      // of the run's snapshot
	before []*snapshot // of earlier runs, and not ready
	err    error
}

// Run takes the snapshots of one scheduled time and deletes what is over. It
// may be repeated for the same Job. What fails for one claim does not keep it
// from the others: it is logged, and ErrFailed says for how many.
func (s *Schedule) Run(ctx context.Context) error {
	at, err := s.scheduledFor(ctx)
	if err != nil {
		return err
	}
	failed := 0
	fail := func(at *slog.Logger, err error) {
		failed++
		at.Error("failed", "error", err)
	}
	var tasks []*task
	for _, namespace := range s.namespaces() {
		found, err := s.objects.claims(ctx, namespace, s.selector.String())
		if err != nil {
			fail(s.Log.With("namespace", namespace), err)
			continue
		}
		for _, c := range found {
			if s.wants(c) {
				tasks = append(tasks, &task{claim: c, name: snapshotName(s.Name, c.Name, at)})
			}
		}
	}
	if len(tasks) == 0 && failed == 0 {
		s.Log.Warn("the selector finds no claim to take a snapshot of", "selector", s.selector.String())
	}
	// All are made before one is waited for: the cluster works on them together.
	for _, t := range tasks {
		t.err = s.begin(ctx, t)
	}
	deadline, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	for _, t := range tasks {
		if t.err == nil {
			t.err = s.finish(ctx, deadline, t)
		}
		if t.err != nil {
			fail(s.about(t), t.err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d failed, and %d claims were to have a snapshot", ErrFailed, failed, len(tasks))
	}
	return nil
}

// namespaces are where the run looks; "" is everywhere.
func (s *Schedule) namespaces() []string {
	if s.AllNamespaces {
		return []string{""}
	}
	return s.Namespaces
}

func (s *Schedule) about(t *task) *slog.Logger {
	return s.Log.With("claim", t.claim.Namespace+"/"+t.claim.Name, "snapshot", t.name)
}

// scheduledFor is the time that the run's snapshots are named after: all tries
// of a Job have the same.
func (s *Schedule) scheduledFor(ctx context.Context) (time.Time, error) {
	if s.Job == "" {
		return s.Now(), nil
	}
	return s.objects.jobTime(ctx, s.JobNamespace, s.Job)
}

// wants says whether a claim that the selector found is to have a snapshot.
func (s *Schedule) wants(c *claim) bool {
	// Who made the volume; one that was written by hand does not say.
	driver := cmp.Or(c.Annotations["volume.kubernetes.io/storage-provisioner"], c.Annotations["volume.beta.kubernetes.io/storage-provisioner"], s.Driver)
	var why string
	switch {
	case c.DeletionTimestamp != nil:
		why = "it is being deleted"
	case driver != s.Driver:
		why = "it is of " + driver
	case c.Status.Phase == "Pending":
		why = "it has no volume yet"
	default:
		return true
	}
	s.Log.Info("a claim has no snapshot taken", "claim", c.Namespace+"/"+c.Name, "reason", why)
	return false
}

// begin makes the snapshot, unless the run has made it, or an earlier one is
// still on its way: it is finished first, so that snapshots that take longer
// than the time between two runs do not pile up.
func (s *Schedule) begin(ctx context.Context, t *task) error {
	if t.claim.Status.Phase != "Bound" {
		return fmt.Errorf("claim %s is %s", t.claim.Name, cmp.Or(t.claim.Status.Phase, "in no phase"))
	}
	all, err := s.objects.snapshots(ctx, t.claim.Namespace, s.mine(t.claim))
	if err != nil {
		return err
	}
	for _, b := range all {
		switch {
		case b.Name == t.name:
			return nil
		case b.Status.Ready || b.DeletionTimestamp != nil:
		case b.failed():
			s.about(t).Warn("a snapshot of an earlier run that failed goes", "gone", b.Name, "reason", b.why())
			if err := s.objects.remove(ctx, b); err != nil {
				return err
			}
		default:
			t.before = append(t.before, b)
		}
	}
	if len(t.before) > 0 {
		return nil
	}
	return s.make(ctx, t)
}

func (s *Schedule) make(ctx context.Context, t *task) error {
	made, err := s.objects.create(ctx, t.claim, t.name, s.Class, s.labels(t.claim))
	if err != nil {
		return err
	}
	if made.Labels[LabelSchedule] != s.Name || made.Labels[LabelClaimUID] != string(t.claim.UID) {
		return fmt.Errorf("there is a VolumeSnapshot %s in namespace %s, and it is not this schedule's of this claim", t.name, t.claim.Namespace)
	}
	return nil
}

// labels are those of the claim's snapshots.
func (s *Schedule) labels(c *claim) map[string]string {
	l := map[string]string{LabelSchedule: s.Name, LabelClaimUID: string(c.UID)}
	if len(validation.IsValidLabelValue(c.Name)) == 0 {
		l[LabelClaim] = c.Name
	}
	return l
}

// mine selects this schedule's snapshots of the claim.
func (s *Schedule) mine(c *claim) string {
	return labels.Set{LabelSchedule: s.Name, LabelClaimUID: string(c.UID)}.String()
}

// finish waits for the snapshot, then deletes what is over, and has the snapshot
// copied: copies that fail must not have snapshots pile up.
func (s *Schedule) finish(ctx, deadline context.Context, t *task) error {
	for _, b := range t.before {
		if _, err := s.objects.await(ctx, deadline, b.Namespace, b.Name); err != nil {
			return fmt.Errorf("no second snapshot is made beside one of an earlier run: %w", err)
		}
	}
	if len(t.before) > 0 {
		if err := s.make(ctx, t); err != nil {
			return err
		}
	}
	made, err := s.objects.await(ctx, deadline, t.claim.Namespace, t.name)
	if err != nil {
		return err
	}
	s.about(t).Info("the snapshot is ready", "takenAt", made.takenAt().UTC())
	if err := s.prune(ctx, t); err != nil || s.CopyWith == "" {
		return err
	}
	return s.copy(ctx, deadline, t, made)
}

// prune deletes what is over of this schedule's snapshots of the claim.
func (s *Schedule) prune(ctx context.Context, t *task) error {
	all, err := s.objects.snapshots(ctx, t.claim.Namespace, s.mine(t.claim))
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range over(all, t.name, s.Keep, s.KeepFor, s.Now()) {
		if err := s.objects.remove(ctx, o); err != nil {
			errs = append(errs, err)
			continue
		}
		s.about(t).Info("a snapshot is over and goes", "gone", o.Name, "takenAt", o.takenAt().UTC())
	}
	return errors.Join(errs...)
}

// over are the snapshots that go: those that are ready, beyond the newest keep
// or, unless it is 0, taken longer ago than keepFor. The newest never goes, nor
// does the one named fresh. What is not ready is no snapshot yet, and is none
// of this function's.
func over(all []*snapshot, fresh string, keep int, keepFor time.Duration, now time.Time) []*snapshot {
	good := slices.DeleteFunc(slices.Clone(all), func(s *snapshot) bool { return !s.Status.Ready || s.DeletionTimestamp != nil })
	slices.SortFunc(good, func(a, b *snapshot) int {
		return cmp.Or(b.takenAt().Compare(a.takenAt()), cmp.Compare(b.Name, a.Name))
	})
	var out []*snapshot
	for i, s := range good {
		old := keepFor > 0 && now.Sub(s.takenAt()) > keepFor
		if i > 0 && s.Name != fresh && (i >= keep || old) {
			out = append(out, s)
		}
	}
	return out
}
