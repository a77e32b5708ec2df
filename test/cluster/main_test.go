//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/cli"
	"github.com/plinth-csi/plinth/test/cluster/internal/images"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
)

const name = "selftest"

// TestMain lets the test binary be the program too, also as process 1.
func TestMain(m *testing.M) {
	if os.Getenv("CLUSTER_SELFTEST") != "" || (len(os.Args) > 1 && os.Args[1] == machine.Subcommand) {
		os.Exit(cli.Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--name", name}, args...)...)
	cmd.Env = append(os.Environ(), "CLUSTER_SELFTEST=1")
	return cmd
}

// try returns what the command wrote to stdout, and its error with what it wrote to stderr.
func try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(stdout.String()+stderr.String()))
	}
	return stdout.String(), nil
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(t, args...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

// eventually repeats a command until it succeeds.
func eventually(t *testing.T, args ...string) string {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		out, err := try(t, args...)
		if err == nil {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", strings.Join(args, " "), err)
		}
	}
}

// leftovers looks for traces of the cluster without the program's own help.
func leftovers(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{
		"/run/netns/" + name + "-*", "/sys/fs/cgroup/" + name + "-*", "/sys/fs/cgroup/*/" + name + "-*",
		"/var/lib/plinth-cluster/" + name + "*",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	grep := func(pattern, word string) {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if raw, err := os.ReadFile(path); err == nil && bytes.Contains(raw, []byte(word)) {
				found = append(found, path)
			}
		}
	}
	grep("/sys/block/loop*/loop/backing_file", "/"+name+"/")
	grep("/proc/[0-9]*/cmdline", machine.Subcommand+"\x00"+name)
	grep("/proc/self/mountinfo", "/"+name+"/")
	return found
}

func down(t *testing.T) {
	t.Helper()
	if t.Failed() {
		if dir, err := os.MkdirTemp("", name+"-"); err == nil {
			_, err := try(t, "collect", dir)
			t.Logf("collected into %s: %v", dir, err)
		}
	}
	if out, err := try(t, "down"); err != nil {
		t.Errorf("down: %s %v", out, err)
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCluster(t *testing.T) {
	down(t)
	defer down(t)
	up := []string{"up", "--nodes", "2", "--kube-api-qps", "1000", "--kube-api-burst", "2000"}
	must(t, up...)
	began := time.Now()
	must(t, up...)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("up of what is up took %v", d)
	}
	if _, err := try(t, "up", "--nodes", "1"); err == nil {
		t.Error("up with other options changed a running cluster")
	}

	must(t, "kubectl", "apply", "-f", "testdata/web.yaml")
	must(t, "kubectl", "rollout", "status", "statefulset/web", "--timeout=60s")
	must(t, "kubectl", "rollout", "status", "daemonset/mounter", "--timeout=60s")

	t.Run("pods reach each other by name", func(t *testing.T) {
		for _, from := range []string{"web-0", "web-1"} {
			for _, to := range []string{"web-0.web", "web-1.web.default.svc.cluster.local"} {
				out := eventually(t, "kubectl", "exec", from, "--", "wget", "-qO-", "http://"+to+"/")
				if got := strings.TrimSpace(out); !strings.HasPrefix(to, got) {
					t.Errorf("%s of %s answers %q", to, from, got)
				}
			}
			eventually(t, "kubectl", "exec", from, "--", "wget", "-qO-", "http://web-any/")
		}
		if out := must(t, "kubectl", "logs", "web-0"); out != "serving\n" {
			t.Errorf("logs: %q", out)
		}
	})

	t.Run("mounts of a pod are seen by the node and by nobody else", func(t *testing.T) {
		must(t, "exec", name+"-1", "--", "grep", "selftest-mark", "/proc/mounts")
		if raw, err := os.ReadFile("/proc/mounts"); err != nil || bytes.Contains(raw, []byte("selftest-mark")) {
			t.Errorf("the host sees the mount, or %v", err)
		}
	})

	const loaded = "example.org/self-test/of-a-name-that-ctr-cuts-short:1"
	t.Run("images are imported once", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "image.tar")
		image := images.Image{
			Names:   []string{loaded},
			Entries: []images.Entry{{Path: "file", Content: []byte("content"), Mode: 0o644}},
		}
		if err := images.Write(archive, image); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"2 imports", "0 imports"} {
			out, err := command(t, "load-image", archive).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("load-image: %s, %v; want %s", out, err, want)
			}
		}
		out := must(t, "exec", name+"-2", "ctr", "images", "ls", "--quiet")
		if !strings.Contains(out, loaded+"\n") {
			t.Errorf("the node has %s", out)
		}
	})

	t.Run("exec passes exit codes on", func(t *testing.T) {
		_, err := try(t, "exec", name+"-1", "sh", "-c", "exit 7")
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 7 {
			t.Errorf("exec: %v", err)
		}
	})

	node := name + "-2"
	for _, end := range [][]string{{"node", "stop", node}, {"node", "kill", node}, {"node", "kill", "--lose-unsynced", node}} {
		t.Run(strings.Join(end, " "), func(t *testing.T) {
			// ext4 would sync every five seconds by itself.
			must(t, "exec", node, "--", "sh", "-euc", `
				mount -o remount,commit=300 /mnt/ext4
				for pool in btrfs xfs ext4; do echo kept > /mnt/$pool/kept; sync -f /mnt/$pool; done
				test -e /mnt/btrfs/sub || btrfs subvolume create /mnt/btrfs/sub
				for at in btrfs/sub xfs; do
					truncate -s 64M /mnt/$at/image
					mkfs.ext4 -qF /mnt/$at/image
					mkdir -p /var/lib/plinth/$at
					mount -o loop /mnt/$at/image /var/lib/plinth/$at
				done
				echo lost > /mnt/ext4/unsynced`)
			must(t, end...)
			backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range backing {
				if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), "/"+node+"/") {
					t.Errorf("%s still holds %s", path, raw)
				}
			}
			must(t, "node", "start", node)
			if out := must(t, "exec", node, "--", "sh", "-c", "cat /mnt/*/kept; ls /mnt/disks"); out != "kept\nkept\nkept\nspare0\nspare1\n" {
				t.Errorf("after the start: %q", out)
			}
			_, err = try(t, "exec", node, "--", "rm", "/mnt/ext4/unsynced")
			if lose := len(end) > 3; (err != nil) != lose {
				t.Errorf("rm of what was not synced: %v", err)
			}
			eventually(t, "kubectl", "exec", "web-0", "--", "wget", "-qO-", "http://web-1.web/")
		})
	}

	t.Run("nodes come and go", func(t *testing.T) {
		added := strings.TrimSpace(must(t, "node", "add"))
		must(t, "kubectl", "get", "node", added)
		must(t, "exec", added, "--", "test", "-b", "/mnt/disks/spare1")
		if out := must(t, "exec", added, "ctr", "images", "ls", "--quiet"); !strings.Contains(out, loaded+"\n") {
			t.Errorf("of the images that were loaded before, %s has none: %s", added, out)
		}
		must(t, "node", "remove", added)
		if _, err := try(t, "kubectl", "get", "node", added); err == nil {
			t.Errorf("%s is still there", added)
		}
	})

	t.Run("the control plane can be away", func(t *testing.T) {
		must(t, "node", "stop", name+"-control")
		must(t, "node", "start", name+"-control")
		must(t, "kubectl", "get", "pod", "web-0")
	})

	t.Run("collect", func(t *testing.T) {
		dir := t.TempDir()
		must(t, "collect", dir)
		for _, file := range []string{
			"objects/default/pods.yaml", "objects/default/events.yaml", "objects/_cluster/nodes.yaml", "losetup.txt",
			name + "-1/log/kubelet.log", name + "-1/mounts.txt", name + "-control/log/kube-apiserver.log",
		} {
			if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", file, err)
			}
		}
		if missing, err := os.ReadFile(filepath.Join(dir, "missing.txt")); err == nil {
			t.Errorf("missing: %s", missing)
		}
	})

	var status struct {
		Phase    string
		Machines []struct{ Name, State, Ready string }
	}
	if err := json.Unmarshal([]byte(must(t, "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Phase != "up" || len(status.Machines) != 3 {
		t.Errorf("status: %+v", status)
	}
}

// A run that is killed at any moment leaves nothing that down does not find, and
// nothing that keeps the next run from its end.
func TestKilledAtAnyMoment(t *testing.T) {
	down(t)
	defer down(t)
	for after := 20 * time.Millisecond; after < 8*time.Second; after = after * 5 / 3 {
		cmd := command(t, "up", "--nodes", "2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(after)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() //nolint:errcheck // it was killed
		down(t)
		if t.Failed() {
			t.Fatalf("killed after %v", after)
		}
	}
	cmd := command(t, "up", "--nodes", "2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * time.Second)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() //nolint:errcheck // it was killed
	must(t, "up", "--nodes", "1")
}
