//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cronJobs are the workloads that run by the clock.
var cronJobs = kind{batchv1.SchemeGroupVersion.WithResource("cronjobs"), true}

// The labels of a snapshot that a schedule took.
const (
	labelSchedule = "plinth.dev/schedule"
	labelClaimOf  = "plinth.dev/claim"
)

// runNow makes a Job of a CronJob, as kubectl create job --from does. It works
// in another namespace than the test's, too.
func (e *env) runNow(namespace, cronJob, name string) *batchv1.Job {
	e.Helper()
	c, err := e.kube.BatchV1().CronJobs(namespace).Get(e.ctx, cronJob, metav1.GetOptions{})
	e.must(err, "read CronJob "+cronJob)
	j, err := e.kube.BatchV1().Jobs(namespace).Create(e.ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: c.Spec.JobTemplate.Labels, Annotations: map[string]string{"cronjob.kubernetes.io/instantiate": "manual"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: c.Name, UID: c.UID, Controller: new(true)}},
		},
		Spec: c.Spec.JobTemplate.Spec,
	}, metav1.CreateOptions{})
	e.must(err, "make a Job of CronJob "+cronJob)
	return j
}

// failed is what await wants of a Job that has given up.
func failed(j *batchv1.Job) error {
	for _, c := range j.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("status %+v", j.Status)
}

// took is a VolumeSnapshot of a schedule.
type took struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		Ready bool `json:"readyToUse"`
	} `json:"status"`
}

// tookBy lists the names of a schedule's snapshots: those that are ready, and
// the others.
func (e *env) tookBy(schedule string) (ready, others []string) {
	e.Helper()
	for _, s := range list[took](e, snapshots) {
		if s.Labels[labelSchedule] != schedule {
			continue
		}
		if s.Status.Ready {
			ready = append(ready, s.Name)
		} else {
			others = append(others, s.Name)
		}
	}
	slices.Sort(ready)
	return ready, others
}

// removeSnapshots deletes all snapshots of the test while their class is there,
// and waits until the nodes have freed them.
func (e *env) removeSnapshots() {
	e.Helper()
	for _, s := range list[took](e, snapshots) {
		e.remove(snapshots, s.Name)
		e.awaitGone(snapshots, s.Name)
		e.awaitGone(plinthSnaps, "snapshot-"+string(s.UID))
	}
}

// jobNames lists the Jobs of a CronJob.
func (e *env) jobNames(cronJob string) []string {
	e.Helper()
	owner := get[batchv1.CronJob](e, cronJobs, cronJob)
	var names []string
	for _, j := range list[batchv1.Job](e, jobs) {
		if metav1.IsControlledBy(j, owner) {
			names = append(names, j.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestWorkloadScheduledSnapshots: the clock takes snapshots, the oldest beyond
// the number go, a schedule that fails deletes none, as many failed runs are
// kept as the history says, and the snapshots outlive the CronJob.
func TestWorkloadScheduledSnapshots(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("cronjob-snapshots.yaml")
	await(e, pods, "diary", "ready", ready)

	// One run of the clock itself; its snapshot is named after the minute.
	c := await(e, cronJobs, "snapshots", "run", func(c *batchv1.CronJob) error {
		if c.Status.LastScheduleTime == nil || c.Status.LastSuccessfulTime == nil {
			return fmt.Errorf("status %+v", c.Status)
		}
		return nil
	})
	e.patch(cronJobs, "snapshots", map[string]any{"spec": map[string]any{"suspend": true}})
	byClock := "frequent.diary." + c.Status.LastScheduleTime.UTC().Format("20060102-150405")
	e.eventually("no run goes on", func() error {
		if c := get[batchv1.CronJob](e, cronJobs, "snapshots"); len(c.Status.Active) > 0 {
			return fmt.Errorf("%v", c.Status.Active)
		}
		return nil
	})
	if all, _ := e.tookBy("frequent"); !slices.Contains(all, byClock) {
		t.Fatalf("the clock made %v, not %s", all, byClock)
	}

	var made []string
	for i := range 4 {
		before, _ := e.tookBy("frequent")
		name := "now-" + strconv.Itoa(i)
		e.runNow(e.ns, "snapshots", name)
		await(e, jobs, name, "complete", complete)
		after, others := e.tookBy("frequent")
		fresh := slices.DeleteFunc(slices.Clone(after), func(n string) bool { return slices.Contains(before, n) })
		if len(fresh) != 1 || len(after) > 3 || len(others) > 0 {
			t.Fatalf("run %d: %v, then %v and, not ready, %v", i, before, after, others)
		}
		made = append(made, fresh[0])
	}
	good, _ := e.tookBy("frequent")
	if want := made[1:]; !slices.Equal(good, want) {
		t.Errorf("the snapshots are %v, want the newest three %v", good, want)
	}
	if s := get[took](e, snapshots, good[0]); s.Labels[labelClaimOf] != "diary" {
		t.Errorf("snapshot %s has the labels %v", s.Name, s.Labels)
	}

	// Runs that fail: there is no such class.
	args := c.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Args
	for i, a := range args {
		if strings.HasPrefix(a, "--snapshot-class=") {
			args[i] = "--snapshot-class=none"
		} else if strings.HasPrefix(a, "--timeout=") {
			args[i] = "--timeout=5s"
		}
	}
	c.Spec.JobTemplate.Spec.BackoffLimit = new(int32)
	e.patch(cronJobs, "snapshots", map[string]any{"spec": map[string]any{"jobTemplate": c.Spec.JobTemplate}})
	for i := range 3 {
		name := "fails-" + strconv.Itoa(i)
		e.runNow(e.ns, "snapshots", name)
		await(e, jobs, name, "failed", failed)
		if i == 0 {
			e.awaitTold(name, "none")
		}
		after, others := e.tookBy("frequent")
		if !slices.Equal(after, good) || len(others) != 1 {
			t.Errorf("with failed run %d the snapshots are %v and, not ready, %v; want %v and one", i, after, others, good)
		}
	}
	e.eventually("two failed runs and a good one are kept", func() error {
		if got := e.jobNames("snapshots"); !slices.Equal(got, []string{"fails-1", "fails-2", "now-3"}) {
			return fmt.Errorf("the Jobs are %v", got)
		}
		return nil
	})

	left := e.jobNames("snapshots")
	e.remove(cronJobs, "snapshots")
	for _, name := range left {
		e.awaitGone(jobs, name)
	}
	e.eventually("the pods of the runs are gone", func() error {
		for _, p := range list[corev1.Pod](e, pods) {
			if p.Name != "diary" {
				return fmt.Errorf("pod %s is there", p.Name)
			}
		}
		return nil
	})
	if after, _ := e.tookBy("frequent"); !slices.Equal(after, good) {
		t.Errorf("without the CronJob the snapshots are %v, want %v", after, good)
	}
	e.removeSnapshots()
}

// awaitTold waits until the pod of a Job that failed says why.
func (e *env) awaitTold(job, words string) {
	e.Helper()
	e.eventually("job "+job+" tells of "+words, func() error {
		told := ""
		for _, p := range e.podsOfJob(job) {
			for _, s := range p.Status.ContainerStatuses {
				if s.State.Terminated != nil {
					told += s.State.Terminated.Message
				}
			}
		}
		if !strings.Contains(told, words) {
			return fmt.Errorf("it says %q", told)
		}
		return nil
	})
}

// TestWorkloadChartSchedule: a CronJob of the chart takes snapshots in the
// namespaces of its schedule, which here are all.
func TestWorkloadChartSchedule(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const namespace, cronJob, class = "plinth-system", "plinth-snapshots-daily", "plinth"
	e.apply("{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: " + class + "}, driver: " + driverName + ", deletionPolicy: Delete}")
	e.Cleanup(func() { e.remove(snapshotClasses, class) })
	labelled := func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"snapshots": "daily"} }
	e.claim("data", "plinth-immediate", "32Mi", labelled)
	e.claim("other", "plinth-immediate", "32Mi")
	await(e, claims, "data", "bound", bound)
	await(e, claims, "other", "bound", bound)
	j := e.runNow(namespace, cronJob, e.ns)
	t.Cleanup(func() {
		_ = e.kube.BatchV1().Jobs(namespace).Delete(e.ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)})
	})
	e.eventually("the run is complete", func() error {
		now, err := e.kube.BatchV1().Jobs(namespace).Get(e.ctx, j.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return complete(now)
	})
	if made, others := e.tookBy("daily"); len(made) != 1 || len(others) != 0 || !strings.HasPrefix(made[0], "daily.data.") {
		t.Errorf("there are %v and, not ready, %v", made, others)
	}
	e.removeSnapshots()
}

// tree makes a tree of all that a backup has to keep: run by root in /data.
const tree = `set -e
mkdir -p '/data/a dir' /data/empty /data/deep/er && cd /data
echo text >'a dir/a file'; ln 'a dir/a file' hard; ln -s 'a dir/a file' soft; ln -s nowhere dangling; mkfifo pipe
dd if=/dev/urandom of=random bs=1M count=3 2>/dev/null
dd if=/dev/urandom of=holes bs=4k count=1 seek=20000 2>/dev/null && truncate -s 96M holes
echo secret >deep/er/secret; chmod 0600 deep/er/secret; chown 1234:5678 deep/er/secret deep
echo run >deep/run; chown 42:43 deep/run; chmod 6751 deep/run; chmod 1777 empty; chmod 0700 deep
touch -d '2001-02-03 04:05:06' random empty; : >nothing; sync`

// facts lists what is in /data: kind, mode, owners, time, size and links of
// files, where symlinks lead, and sums of what is in files; lost+found is the
// filesystem's own.
const facts = `cd /data && find . | grep -v '^\./lost+found' | sort | while IFS= read -r f; do
stat -c '%n|%F|%a|%u|%g' "$f"; if [ -L "$f" ]; then readlink "$f"; continue; fi
stat -c '%Y' "$f"; if [ -f "$f" ]; then stat -c '%s %h' "$f"; sha256sum <"$f"; fi; done`

// TestWorkloadBackup: what is restored from a backup is what was in the
// snapshot, which a second restore shows, while the application goes on.
func TestWorkloadBackup(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.sample("cronjob-backup.yaml")
	await(e, pods, "shop", "ready", ready)
	e.pod("builder", "shop")
	await(e, pods, "builder", "ready", ready)
	e.mustSh("builder", tree)
	orders := func(pod string) int {
		t.Helper()
		n, err := strconv.Atoi(e.mustSh(pod, "wc -l </data/orders"))
		e.must(err, "count the orders")
		return n
	}
	before := orders("shop")
	started := time.Now()
	e.runNow(e.ns, "backup", "now")
	await(e, jobs, "now", "complete", complete)
	took := time.Since(started)
	after := orders("shop")

	made, others := e.tookBy("nightly")
	if len(made) != 1 || len(others) != 0 {
		t.Fatalf("the snapshots are %v and, not ready, %v", made, others)
	}
	// The writer goes on in the same file that is compared, so the snapshot is
	// restored a second time, by itself.
	e.claim("second", "plinth", "320Mi", restoring(made[0]))
	e.pod("second", "second")
	e.patch(jobs, "restore", map[string]any{"spec": map[string]any{"suspend": false}})
	await(e, jobs, "restore", "complete", complete)
	await(e, pods, "second", "ready", ready)
	look := e.look("restored")
	want, got := e.mustSh("second", facts), e.mustSh(look, facts)
	if got != want {
		t.Errorf("restored is\n%s\n\nand the snapshot has\n%s", got, want)
	}
	for _, line := range []string{"./deep/er/secret|regular file|600|1234|5678", "./deep/run|regular file|6751|42|43", "./empty|directory|1777|", "./pipe|fifo|", "./dangling|symbolic link|", "nowhere", "100663296 1"} {
		if !strings.Contains(want, line) {
			t.Errorf("no %q in\n%s", line, want)
		}
	}
	if kb := e.mustSh(look, "du -k /data/holes | cut -f1"); len(kb) > 3 {
		t.Errorf("of a file with holes the restored one holds %s KiB", kb)
	}
	in, now := orders("second"), orders("shop")
	t.Logf("the backup took %v; orders: %d before, %d in the snapshot, %d after, %d now", took.Round(time.Second), before, in, after, now)
	if in < before || in >= after || after >= now {
		t.Errorf("the application has not gone on: %d orders before, %d in the snapshot, %d after the backup, %d now", before, in, after, now)
	}
	from, to := e.volumeOf("shop"), e.volumeOf("backups")
	if from.Spec.Pool == to.Spec.Pool {
		t.Errorf("the backup is in the pool of its source, %s", to.Spec.Pool)
	}

	e.remove(cronJobs, "backup")
	e.remove(cronJobs, "backup-copy")
	e.awaitGone(jobs, "now")
	e.removeSnapshots()
}
