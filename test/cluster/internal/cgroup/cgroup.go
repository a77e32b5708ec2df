// Package cgroup gives each machine of a cluster a branch of its own in every
// cgroup hierarchy of this machine, version 1 and version 2.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leaf is where the processes of a machine start. Version 2 does not let a
// group that hands controllers on hold processes itself (cgroups(7), "no
// internal processes").
const leaf = "system"

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	path string
	v2   bool
}

// hierarchies lists the cgroup trees of this machine.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var found []hierarchy
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		// proc_pid_mountinfo(5): the filesystem type follows the lone dash.
		left, right, ok := strings.Cut(scan.Text(), " - ")
		fields := strings.Fields(left)
		if !ok || len(fields) < 5 || fields[3] != "/" || !strings.HasPrefix(fields[4], "/sys/fs/cgroup") {
			continue
		}
		switch fstype, _, _ := strings.Cut(right, " "); fstype {
		case "cgroup":
			found = append(found, hierarchy{path: fields[4]})
		case "cgroup2":
			found = append(found, hierarchy{path: fields[4], v2: true})
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return found, nil
}

// Make creates the branch name in every hierarchy. It may be there already.
func Make(name string) error {
	all, err := hierarchies()
	if err != nil {
		return fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for _, h := range all {
		if err := h.make(name); err != nil {
			return fmt.Errorf("make cgroup %s in %s: %w", name, h.path, err)
		}
	}
	return nil
}

func (h hierarchy) make(name string) error {
	for _, dir := range []string{name, filepath.Join(name, leaf)} {
		path := filepath.Join(h.path, dir)
		if h.v2 {
			if err := delegate(filepath.Dir(path)); err != nil {
				return err
			}
		}
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCPUSet(path); err != nil {
			return err
		}
	}
	return nil
}

// inheritCPUSet fills what version 1 leaves empty: a cpuset that has no
// processor and no memory node accepts no process.
func inheritCPUSet(path string) error {
	for _, key := range []string{"cpuset.cpus", "cpuset.mems"} {
		own := filepath.Join(path, key)
		if v, err := os.ReadFile(own); err != nil || strings.TrimSpace(string(v)) != "" {
			continue // another hierarchy, or set already
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(path), key))
		if err != nil {
			continue // version 2 inherits by itself, and its root has no such file
		}
		if err := os.WriteFile(own, parent, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// delegate hands every controller of a version 2 group on to its children.
func delegate(path string) error {
	have, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		if err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("hand the controller %s on: %w", c, err)
		}
	}
	return nil
}

// Join moves the process pid, and thereby its children to come, into the branch name.
func Join(name string, pid int) error {
	all, err := hierarchies()
	if err != nil {
		return fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for _, h := range all {
		procs := filepath.Join(h.path, name, leaf, "cgroup.procs")
		if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d into its cgroup: %w", pid, err)
		}
	}
	return nil
}

// Remove deletes the branch name everywhere, waiting until ctx ends for its
// last processes to be gone. Absence is nil.
func Remove(ctx context.Context, name string) error {
	all, err := hierarchies()
	if err != nil {
		return fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for _, h := range all {
		for {
			err := removeTree(filepath.Join(h.path, name))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup %s from %s: %w", name, h.path, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		// rmdir, not Remove: the files of a cgroup cannot be unlinked one by one.
		if e := os.Remove(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Left lists what still exists of the branch name.
func Left(name string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, h := range all {
		path := filepath.Join(h.path, name)
		if _, err := os.Stat(path); err == nil {
			left = append(left, path)
		}
	}
	return left, nil
}
