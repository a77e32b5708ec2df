package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/cgroup"
	"github.com/plinth-csi/plinth/test/cluster/internal/network"
	"github.com/plinth-csi/plinth/test/cluster/internal/state"
)

// Handle is a machine that this process started and has not let go of yet.
type Handle struct {
	name  string
	words *os.File
}

// Start starts the machine. Its network namespace and cgroup are there. The
// machine does nothing before record has returned, so no process of it can
// outlive a caller that was killed before it knew the process. listener may be nil.
func Start(spec Spec, listener *os.File, record func(state.Process) error) (*Handle, error) {
	wordsR, wordsW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, wordsR.Close(), wordsW.Close())
	}
	defer answerR.Close() //nolint:errcheck // read only
	inherited := []*os.File{wordsR, answerW}
	if listener != nil {
		inherited = append(inherited, listener)
	}
	pid, err := spawn(spec.Name, inherited)
	wordsR.Close()  //nolint:errcheck // the machine has its own
	answerW.Close() //nolint:errcheck // the machine has its own
	h := &Handle{name: spec.Name, words: wordsW}
	if err == nil {
		err = h.begin(spec, pid, answerR, record)
	}
	if err != nil {
		h.words.Close() //nolint:errcheck // tells the machine to end
		return nil, fmt.Errorf("start machine %s: %w", spec.Name, err)
	}
	return h, nil
}

func (h *Handle) begin(spec Spec, pid int, answers io.Reader, record func(state.Process) error) error {
	process, err := state.Find(pid)
	if err != nil {
		return err
	}
	if err := record(process); err != nil {
		return err
	}
	if err := cgroup.Join(spec.Name, pid); err != nil {
		return err
	}
	if err := json.NewEncoder(h.words).Encode(spec); err != nil {
		return err
	}
	answer, err := io.ReadAll(answers)
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(answer)); text != answerReady {
		if text == "" {
			text = "process 1 ended without a word"
		}
		return errors.New(text)
	}
	return nil
}

// spawn starts process 1 of the machine called name and returns its number on the host.
func spawn(name string, inherited []*os.File) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, Subcommand, name)
	cmd.ExtraFiles = inherited
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	started := make(chan error)
	go func() {
		// The child inherits this thread's network; the thread ends with the goroutine.
		runtime.LockOSThread()
		err := network.Enter(name)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		return 0, err
	}
	go cmd.Wait() //nolint:errcheck // only so that it does not stay a zombie
	return cmd.Process.Pid, nil
}

// Open starts the gated units.
func (h *Handle) Open() error { return h.say(wordOpen) }

// Release lets the machine live on without this process.
func (h *Handle) Release() error {
	return errors.Join(h.say(wordRelease), h.words.Close())
}

// Abandon lets go of the machine, which ends unless it was released.
func (h *Handle) Abandon() { h.words.Close() } //nolint:errcheck // the end of the file is the message

func (h *Handle) say(word string) error {
	if _, err := fmt.Fprintln(h.words, word); err != nil {
		return fmt.Errorf("tell machine %s to %s: %w", h.name, word, err)
	}
	return nil
}
