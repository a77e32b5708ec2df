package machine

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestCatchesTERM(t *testing.T) {
	for script, want := range map[string]bool{
		"trap 'exit 0' TERM; echo ready; read wait":   true,
		"echo ready; read wait":                       false,
		"trap '' TERM; echo ready; read wait; exit 0": false, // ignores it: there is nothing to wait for
	} {
		cmd := exec.Command("sh", "-c", script)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if got := catchesTERM(cmd.Process.Pid); got != want {
			t.Errorf("%q catches TERM: %v", script, got)
		}
		stdin.Close()
		cmd.Wait() //nolint:errcheck // read reports the end of its input
	}
}

func TestRelayPassesBothDirectionsAndTheirEnds(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		question, err := io.ReadAll(c) // until the client has closed its direction
		if err == nil {
			c.Write(append([]byte("heard "), question...)) //nolint:errcheck // the client notices
		}
	}()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	go func() {
		if c, err := front.Accept(); err == nil {
			join(c, server.Addr().String())
		}
	}()
	client, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "heard hello" {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func TestCopyTreeKeepsWhatIsThere(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(from, "sub/new"), "host")
	write(filepath.Join(from, "sub/own"), "host")
	write(filepath.Join(to, "sub/own"), "machine")
	if err := os.Symlink("sub/new", filepath.Join(from, "alias")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second boot finds all of it
		if err := copyTree(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"sub/new": "host", "sub/own": "machine", "alias": "host"} {
		if got, err := os.ReadFile(filepath.Join(to, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if err := copyTree(filepath.Join(from, "absent"), to); err != nil {
		t.Errorf("absence: %v", err)
	}
}
