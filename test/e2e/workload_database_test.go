//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// restricted has the test's namespace take no pods but those that Pod Security
// calls restricted.
func (e *env) restricted() {
	e.Helper()
	e.patch(namespaces, e.ns, map[string]any{"metadata": map[string]any{"labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted"}}})
}

// sql asks the database in a pod, through its socket.
func (e *env) sql(pod, query string) string {
	e.Helper()
	out, err := e.run(pod, "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", query)
	e.must(err, "ask the database")
	return out
}

// rows counts the rows up to n that are as the inserter wrote them.
func (e *env) rows(pod string, n int) int {
	e.Helper()
	return e.number(pod, fmt.Sprintf("SELECT count(*) FROM kept WHERE n <= %d AND word = md5(n::text)", n))
}

// lastRow is the highest row in the database.
func (e *env) lastRow(pod string) int {
	e.Helper()
	return e.number(pod, "SELECT coalesce(max(n), 0) FROM kept")
}

func (e *env) number(pod, query string) int {
	e.Helper()
	n, err := strconv.Atoi(e.sql(pod, query))
	e.must(err, "read a number")
	return n
}

// inserter inserts one row after the other, each a transaction, until it is
// stopped or one fails.
type inserter struct {
	e     *env
	pod   string
	ended chan error

	mu  sync.Mutex
	out bytes.Buffer // a line with the number of each row that is committed
}

func (e *env) inserting(pod string) *inserter {
	i := &inserter{e: e, pod: pod, ended: make(chan error, 1)}
	const script = `rm -f /tmp/stop
n=$(psql -qAtX -c "SELECT coalesce(max(n), 0) FROM kept") || exit 1
while [ ! -e /tmp/stop ]; do
  n=$((n+1))
  psql -qAtX -v ON_ERROR_STOP=1 -c "INSERT INTO kept VALUES ($n, md5('$n'))" || exit 1
  echo $n
done`
	go func() { i.ended <- e.stream(e.ctx, pod, i, "sh", "-c", script) }()
	return i
}

// Write takes what the script prints.
func (i *inserter) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.out.Write(p)
}

// committed is the last row whose transaction is known to have been committed.
func (i *inserter) committed() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	lines := strings.Split(i.out.String(), "\n") // the last one may not be whole
	if len(lines) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(lines[len(lines)-2])
	return n
}

// more waits until so many more rows are committed, and returns the last one.
func (i *inserter) more(count int) int {
	i.e.Helper()
	least := i.committed() + count
	i.e.eventually(fmt.Sprintf("row %d is committed", least), func() error {
		select {
		case err := <-i.ended:
			i.ended <- err
			i.e.Fatalf("the inserter ended: %v", err)
		default:
		}
		if n := i.committed(); n < least {
			return fmt.Errorf("the last is %d", n)
		}
		return nil
	})
	return i.committed()
}

// stop ends it; not one row may have failed. It returns the last one.
func (i *inserter) stop() int {
	i.e.Helper()
	i.e.mustSh(i.pod, "touch /tmp/stop")
	if err := <-i.ended; err != nil {
		i.e.Errorf("a row failed: %v", err)
	}
	return i.committed()
}

// TestWorkloadDatabase: what PostgreSQL has committed is there after its
// processes, its pod and the agent of its node were killed with SIGKILL; a
// second one starts from a snapshot that was taken meanwhile, with the same
// rows; the volume grows under it while it writes.
func TestWorkloadDatabase(t *testing.T) { // alone: it kills an agent
	e := newEnv(t)
	e.restricted()
	e.sample("postgresql.yaml")
	e.awaitSet("postgresql")
	const pod, claim = "postgresql-0", "data-postgresql-0"
	e.sql(pod, "CREATE TABLE kept (n int PRIMARY KEY, word text NOT NULL)")

	// What is asked for is on the volume, whatever ends its database.
	survives := func(how string, committed int) {
		t.Helper()
		if got := e.rows(pod, committed); got != committed {
			t.Errorf("%s: of %d rows that were committed %d are there", how, committed, got)
		}
		if last := e.lastRow(pod); e.rows(pod, last) != last {
			t.Errorf("%s: not all rows up to %d are there", how, last)
		}
	}
	before := e.members("postgresql", 1)[0]
	w := e.inserting(pod)
	w.more(20)
	e.must(e.kill(before.pod), "kill PostgreSQL")
	if err := <-w.ended; err == nil {
		t.Error("the inserter did not notice that its database was killed")
	}
	e.awaitStartedAnew(before.pod)
	survives("PostgreSQL killed", w.committed())

	w = e.inserting(pod)
	w.more(20)
	agent := e.agentOn(before.pod.Spec.NodeName)
	e.must(e.kill(agent), "kill the agent")
	w.more(20)
	e.in(agent.Namespace).awaitStartedAnew(agent)
	w.more(1)
	committed := w.stop()
	survives("agent killed", committed)
	e.remove(pods, pod) // at once, with SIGKILL
	e.awaitNewPod(pod, before.pod.UID)
	e.same(before, e.members("postgresql", 1)[0])
	survives("agent and pod killed", committed)

	e.restoredDatabase(pod)

	w = e.inserting(pod)
	w.more(5)
	size := e.sizeOf(pod, "/data")
	e.ask(claim, "768Mi")
	await(e, claims, claim, "grown", grown("768Mi"))
	e.eventually("PostgreSQL's filesystem has grown", func() error {
		if now := e.sizeOf(pod, "/data"); now < size+200<<20 {
			return fmt.Errorf("it has %d MiB, had %d", now>>20, size>>20)
		}
		return nil
	})
	w.more(20)
	survives("volume grown", w.stop())
	if p := get[corev1.Pod](e, pods, pod); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("PostgreSQL did not go on: %+v", p.Status.ContainerStatuses[0])
	}
}

// restoredDatabase has a second database start from a snapshot of the first,
// taken while that is written to, and compares them.
func (e *env) restoredDatabase(pod string) {
	e.Helper()
	const second = "postgresql-restored-0"
	w := e.inserting(pod)
	committed := w.more(20)
	e.sample("postgresql-restore.yaml")
	e.awaitSet("postgresql-restored")
	w.more(1)
	w.stop()
	n := e.lastRow(second)
	if n < committed {
		e.Errorf("row %d was committed before the snapshot, and the last in it is %d", committed, n)
	}
	if first, restored := e.rows(pod, n), e.rows(second, n); first != n || restored != n {
		e.Errorf("of the %d rows of the snapshot the first database has %d and the second %d", n, first, restored)
	}
	e.sql(second, "INSERT INTO kept VALUES (-1, 'of the second')")
	if got := e.number(pod, "SELECT count(*) FROM kept WHERE n < 0"); got != 0 {
		e.Error("what the second database writes is in the first")
	}

	// Through the network it takes the password.
	const ask = `psql -qAtX -h postgresql-0.postgresql -c "SELECT 'let in'"`
	e.eventually("the second database's pod is let into the first", func() error {
		got, err := e.sh(second, "PGPASSWORD=change-me "+ask)
		if err == nil && got != "let in" {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
	if out, err := e.sh(second, "PGPASSWORD=guessed "+ask); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		e.Errorf("with a wrong password: %q, %v", out, err)
	}
}

// sizeOf asks a pod for the size of the filesystem at a path.
func (e *env) sizeOf(pod, path string) int64 {
	e.Helper()
	var blocks, size int64
	_, err := fmt.Sscan(e.mustSh(pod, "stat -f -c '%b %S' "+path), &blocks, &size)
	e.must(err, "read the size of a filesystem")
	return blocks * size
}
