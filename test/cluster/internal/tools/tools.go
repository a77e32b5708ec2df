// Package tools builds the programs of a cluster from Go modules, once for each
// version, into a cache that outlives checkouts.
package tools

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/run"
)

// Group is a folder tools/NAME with a go.mod whose tool directives say what to build.
type Group struct {
	Name    string
	LDFlags string
	// Rename gives a built program the name it is known by.
	Rename map[string]string
}

const strip = "-s -w"

// Groups are all there are.
var groups = []Group{
	{Name: "etcd", LDFlags: strip, Rename: map[string]string{"server": "etcd"}},
	{Name: "containerd", LDFlags: strip},
	{Name: "kubernetes", LDFlags: strip +
		" -X k8s.io/component-base/version.gitVersion=v1.37.2" +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=37"},
	{Name: "coredns", LDFlags: strip},
	{Name: "helm", LDFlags: strip},
}

// Names lists the groups in the order they are built in.
func Names() []string {
	var names []string
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return names
}

// Cache knows where sources and results are.
type Cache struct {
	Dir    string // of results
	Source string // the folder of this Go module
}

// Locate finds the cache (PLINTH_CACHE, or .cache/plinth in the home folder) and
// the source of this program.
func Locate() (Cache, error) {
	dir := os.Getenv("PLINTH_CACHE")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Cache{}, fmt.Errorf("find the cache: set PLINTH_CACHE: %w", err)
		}
		dir = filepath.Join(home, ".cache", "plinth")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Cache{}, err
	}
	source, err := findSource()
	return Cache{Dir: dir, Source: source}, err
}

// findSource returns the folder of this module: where it was compiled from, or
// what PLINTH_CLUSTER_SOURCE says when the program was moved.
func findSource() (string, error) {
	dir := os.Getenv("PLINTH_CLUSTER_SOURCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "..", "..")
	}
	if _, err := os.Stat(filepath.Join(dir, "tools")); err != nil {
		return "", fmt.Errorf("find the source of this program: set PLINTH_CLUSTER_SOURCE to the folder that holds tools/: %w", err)
	}
	return dir, nil
}

// Path is where the programs of the group called name are, or will be.
func (c Cache) Path(name string) (string, error) {
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return "", fmt.Errorf("no group of tools is called %q: there are %s", name, strings.Join(Names(), ", "))
	}
	sum, err := c.hash(groups[i])
	if err != nil {
		return "", fmt.Errorf("hash the tools %s: %w", name, err)
	}
	return filepath.Join(c.Dir, "tools", name+"-"+sum), nil
}

func (c Cache) hash(g Group) (string, error) {
	sum := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(c.Source, "tools", g.Name, file))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n", file, len(raw))
		sum.Write(raw)
	}
	fmt.Fprintf(sum, "%s\n%v\n%s", g.LDFlags, g.Rename, runtime.GOARCH)
	return fmt.Sprintf("%x", sum.Sum(nil)[:6]), nil
}

// Build makes sure that the groups called names are built, and returns their
// folders by name. progress hears what takes long.
func (c Cache) Build(ctx context.Context, names []string, progress func(format string, args ...any)) (map[string]string, error) {
	dirs := map[string]string{}
	for _, name := range names {
		dir, err := c.Path(name)
		if err != nil {
			return nil, err
		}
		dirs[name] = dir
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == name })
		if err := c.build(ctx, groups[i], dir, progress); err != nil {
			return nil, fmt.Errorf("build the tools %s: %w", name, err)
		}
	}
	return dirs, nil
}

// build compiles g into a temporary folder and then gives it its name, so that
// dir is there either whole or not at all.
func (c Cache) build(ctx context.Context, g Group, dir string, progress func(string, ...any)) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".building-"+g.Name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already when all went well
	source := filepath.Join(c.Source, "tools", g.Name)
	list, err := run.Command{Argv: []string{"go", "list", "tool"}, Dir: source}.Run(ctx)
	if err != nil {
		return err
	}
	done := tick(progress, g.Name)
	defer done()
	// One at a time: linking several big programs at once needs too much memory.
	for _, pkg := range strings.Fields(string(list)) {
		progress("building %s", pkg)
		_, err := run.Command{
			Argv: []string{"go", "build", "-ldflags", g.LDFlags, "-o", tmp + "/", pkg},
			Dir:  source,
			Env:  []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
		}.Run(ctx)
		if err != nil {
			return err
		}
	}
	for from, to := range g.Rename {
		if err := os.Rename(filepath.Join(tmp, from), filepath.Join(tmp, to)); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	return err
}

// tick reports every half minute that the build of name goes on.
func tick(progress func(string, ...any), name string) (stop func()) {
	began := time.Now()
	ticker := time.NewTicker(30 * time.Second)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				progress("still building %s (%v)", name, time.Since(began).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(done) }
}
