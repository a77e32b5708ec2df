package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is process 1 of a machine. It returns when the machine shall end.
func Main() error {
	words := bufio.NewReader(os.NewFile(fdWords, "words"))
	line, err := words.ReadBytes('\n')
	if err != nil {
		return errors.New("the parent ended before it said what to run")
	}
	answer := os.NewFile(fdAnswer, "answer")
	m, err := boot(line)
	if err != nil {
		fmt.Fprintln(answer, err)
		return err
	}
	m.startAll()
	fmt.Fprintln(answer, answerReady)
	answer.Close() //nolint:errcheck // the parent reads to the end

	orphaned := make(chan struct{})
	go m.listen(words, orphaned)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	select {
	case <-orphaned:
		return errors.New("the parent ended before the machine was complete")
	case <-stop:
		m.shutDown()
		return nil
	}
}

// boot makes this process process 1 of the machine that line describes.
func boot(line []byte) (*supervisor, error) {
	var spec Spec
	if err := json.Unmarshal(line, &spec); err != nil {
		return nil, fmt.Errorf("read the spec: %w", err)
	}
	unix.CloseOnExec(fdWords)
	unix.CloseOnExec(fdAnswer)
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return nil, fmt.Errorf("set the host name: %w", err)
	}
	logs, err := openLogs(spec)
	if err != nil {
		return nil, err
	}
	if err := assembleRoot(spec); err != nil {
		return nil, err
	}
	if err := pivot(spec.Root); err != nil {
		return nil, err
	}
	raiseOpenFiles()
	if spec.Relay != "" {
		if err := relay(fdListener, spec.Relay); err != nil {
			return nil, err
		}
	}
	return newSupervisor(spec.Units, logs)
}

// openLogs opens the log of each unit while the host's folders can be seen.
func openLogs(spec Spec) (map[string]*os.File, error) {
	logs := map[string]*os.File{}
	for _, u := range spec.Units {
		path := filepath.Join(spec.LogDir, u.Name+".log")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the log of %s: %w", u.Name, err)
		}
		logs[u.Name] = f
	}
	return logs, nil
}

// listen does what the parent says. It closes orphaned if the parent ends too early.
func (m *supervisor) listen(words *bufio.Reader, orphaned chan<- struct{}) {
	for {
		word, err := words.ReadString('\n')
		if err != nil {
			close(orphaned)
			return
		}
		switch strings.TrimSpace(word) {
		case wordOpen:
			close(m.gate)
		case wordRelease:
			return
		}
	}
}

// raiseOpenFiles lets the machine have as many open files as this machine may.
func raiseOpenFiles() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // best effort: the old limit serves small clusters
	}
}

// relay accepts connections on the inherited listener, which belongs to the
// host's network, and joins each with one to address in this machine's network.
func relay(fd int, address string) error {
	file := os.NewFile(uintptr(fd), "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("use the inherited listener: %w", err)
	}
	file.Close() //nolint:errcheck // FileListener has its own copy
	go func() {
		for {
			outside, err := listener.Accept()
			if err != nil {
				return
			}
			go join(outside, address)
		}
	}()
	return nil
}
