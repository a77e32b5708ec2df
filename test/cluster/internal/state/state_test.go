package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

func TestStateIsFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open of nothing: %v", err)
	}
	s, err := Create(dir, State{Options: plan.Options{Name: "c", Nodes: 2}, Phase: Making, Port: 4711})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(func(s *State) {
		s.Phase = Up
		s.Machines["c-2"] = &Machine{Index: 2}
		s.Machines["c-control"] = &Machine{Init: &Process{PID: 7, Start: 8}}
		s.Machines["c-1"] = &Machine{Index: 1, Stopped: true}
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := again.Get()
	if got.Phase != Up || got.Port != 4711 || got.Options.Nodes != 2 || *got.Machines["c-control"].Init != (Process{7, 8}) || !got.Machines["c-1"].Stopped {
		t.Errorf("found %+v", got)
	}
	if names := got.Names(); len(names) != 3 || names[0] != "c-control" || names[1] != "c-1" || names[2] != "c-2" {
		t.Errorf("names in the order %v", names)
	}
	// What Get returned is a copy.
	got.Machines["c-1"].Stopped = false
	if !again.Get().Machines["c-1"].Stopped {
		t.Error("a change of the copy changed the state")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".state-*")); len(left) > 0 {
		t.Errorf("temporary files stay: %v", left)
	}
}

func TestStateThatCannotBeReadNamesItsFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open: %v", err)
	}
	if !Exists(dir) {
		t.Error("a broken state is not an absent one")
	}
}

func TestSignalReachesOnlyTheVeryProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Process{PID: p.PID, Start: p.Start + 1}
	if !p.Alive() || other.Alive() || (*Process)(nil).Alive() {
		t.Fatalf("alive: %v, with another start time: %v", p.Alive(), other.Alive())
	}
	if err := other.Signal(unix.SIGKILL); err != nil || !p.Alive() {
		t.Fatalf("a process of the same number was killed, or %v", err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); p.Alive(); { // a zombie is not alive
		if time.Now().After(deadline) {
			t.Fatal("still alive after SIGKILL")
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("sleep ended by itself")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("signal to what is gone: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	first, err := Acquire(t.Context(), dir, func() { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	waited := false
	if _, err := Acquire(short, dir, func() { waited = true }); !errors.Is(err, context.DeadlineExceeded) || !waited {
		t.Fatalf("second lock: %v, waited %v", err, waited)
	}
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	second, err := Acquire(t.Context(), dir, func() { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
}
