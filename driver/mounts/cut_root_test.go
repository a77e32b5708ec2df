//go:build root

package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/host/mount"
	"github.com/plinth-csi/plinth/driver/host/run"
	"github.com/plinth-csi/plinth/driver/volume"
)

// maxCuts bounds the operations of one call: more is a loop.
const maxCuts = 60

// cutCase is a call that is cut, and what the machine is like when it is
// through.
type cutCase struct {
	name       string
	before, do func(*node) error
	mounted    []string // where the volume is then
	attached   bool     // whether it then has a device, if its kind has one
	absent     bool     // whether it is then deleted
	after      func(*node) error
}

// seen is the path at which the content of the volume is looked at, if any.
func (c cutCase) seen(n *node) string {
	for _, m := range c.mounted {
		if m != "staging" {
			return n.path(m)
		}
	}
	return ""
}

func cutCases(t *testing.T, k kind, id volume.ID) []cutCase {
	ctx := t.Context()
	nothing := func(*node) error { return nil }
	stage := func(n *node) error { return n.Stage(ctx, id, n.path("staging"), use(k)) }
	unstage := func(n *node) error { return n.Unstage(ctx, id, n.path("staging")) }
	publish := func(n *node) error { return n.Publish(ctx, id, n.path("staging"), n.path("pod"), use(k)) }
	unpublish := func(n *node) error { return n.Unpublish(ctx, id, n.path("pod")) }
	expose := func(n *node) error { _, err := n.Expose(ctx, id); return err }
	unexpose := func(n *node) error { return n.Unexpose(ctx, id) }
	restore := func(n *node) error { return n.Restore(ctx) }
	grow := func(n *node) error {
		v, err := n.pools.Get(ctx, id)
		if err == nil {
			_, err = n.pools.Expand(ctx, id, v.Size+32<<20)
		}
		return err
	}
	expand := func(n *node) error { _, err := n.Expand(ctx, id, n.path("pod")); return err }
	all := func(steps ...func(*node) error) func(*node) error {
		return func(n *node) error {
			for _, s := range steps {
				if err := s(n); err != nil {
					return err
				}
			}
			return nil
		}
	}
	staged, published, shown := []string{"staging"}, []string{"pod", "staging"}, []string{"mounts/live/" + string(id) + "/volume"}
	if k.mode == volume.Block {
		staged, published = nil, []string{"pod"}
	}
	if k.fsType == "" && k.mode == volume.Filesystem {
		shown = nil
	}
	cases := []cutCase{
		{"stage", nothing, stage, staged, true, false, unstage},
		{"unstage", stage, unstage, nil, false, false, nothing},
		{"publish", stage, publish, published, true, false, all(unpublish, unstage)},
		{"unpublish", all(stage, publish), unpublish, staged, true, false, unstage},
		{"expose", nothing, expose, shown, true, false, unexpose},
		{"unexpose", expose, unexpose, nil, false, false, nothing},
		{"restore", all(expose, (*node).reboot), restore, shown, true, false, unexpose},
	}
	if k.fsType != "ext4" || mayResize(t) {
		cases = append(cases, cutCase{"expand", all(stage, publish, grow), expand, published, true, false, all(unpublish, unstage)})
	}
	if k.mode == volume.Block {
		return cases
	}
	born := func(n *node) error {
		return n.PublishEphemeral(ctx, inline, n.path("pod"), use(k), inlineRequest(k))
	}
	dies := func(n *node) error { return n.Unpublish(ctx, inline, n.path("pod")) }
	return append(cases,
		cutCase{"ephemeral publish", nothing, born, []string{"pod"}, true, false, dies},
		// The pod went before its volume was published: kubelet undoes it.
		cutCase{"ephemeral given up", nothing, all(born, dies), nil, false, true, nothing},
		cutCase{"ephemeral unpublish", born, dies, nil, false, true, nothing},
	)
}

// TestCuts has every call go wrong at its operation 0, 1, 2 … until it gets
// through, in each of the ways that there are, and calls it again. Then
// records, mounts and loop devices agree, and undone it leaves nothing.
func TestCuts(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, k)
			id := n.create(t, k)
			must(t, n.Stage(t.Context(), id, n.path("staging"), use(k)), n.Publish(t.Context(), id, n.path("staging"), n.path("pod"), use(k)))
			must(t, put(n.path("pod"), k, "hello"), n.Unpublish(t.Context(), id, n.path("pod")), n.Unstage(t.Context(), id, n.path("staging")))
			for _, c := range cutCases(t, k, id) {
				for _, how := range []string{refused, unheard, crash} {
					if how == refused && k.fsType != "" && strings.HasPrefix(c.name, "ephemeral") {
						continue // each makes a filesystem, and the kinds without one tell as much
					}
					if !t.Run(c.name+" "+how, func(t *testing.T) { n.cutAll(t, k, c, how) }) {
						return // what it left would fail the others
					}
				}
			}
		})
	}
}

func (n *node) cutAll(t *testing.T, k kind, c cutCase, how string) {
	for i := 0; ; i++ {
		if i > maxCuts {
			t.Fatalf("not through after %d operations", i)
		}
		must(t, c.before(n))
		cut := &cutter{n: i, how: how}
		whole := n.Service
		var err error
		n.Service, err = New(Options{Volumes: cutVolumes{n.pools, cut}, Host: cutHost{Machine{Runner: run.Exec{}}, cut}, Dir: n.dir, Log: n.log})
		must(t, err)
		err = c.do(n)
		n.Service = whole
		if cut.hit && how == crash {
			n.pools.Close()
			n.open(t, k)
		}
		if err != nil && !errors.Is(err, errCut) {
			t.Fatalf("cut at operation %d (%s): %v", i, cut.last, err)
		}
		if err := c.do(n); err != nil {
			t.Fatalf("again after a cut at operation %d (%s): %v", i, cut.last, err)
		}
		n.agrees(t, k, c)
		must(t, c.after(n))
		n.agrees(t, k, cutCase{absent: true})
		if t.Failed() {
			t.Fatalf("cut at operation %d (%s)", i, cut.last)
		}
		if !cut.hit {
			return
		}
	}
}

// agrees checks what is mounted and attached, and which volumes there are.
func (n *node) agrees(t *testing.T, k kind, c cutCase) {
	t.Helper()
	all, err := mount.AtOrBelow(n.base)
	must(t, err)
	points := []string{}
	for _, m := range all {
		if rel, err := filepath.Rel(n.base, m.Point); err == nil && rel != "mounts/"+liveDir {
			points = append(points, rel)
		}
	}
	slices.Sort(points)
	if !slices.Equal(points, c.mounted) {
		t.Errorf("mounted at %v, want %v", points, c.mounted)
	}
	if at := c.seen(n); at != "" && !strings.HasPrefix(c.name, "ephemeral") {
		if got := get(t, at, k, 5); got != "hello" {
			t.Errorf("it has %q", got)
		}
	}
	devices := 0
	if c.attached && k.backend == "image" {
		devices = 1
	}
	if got := loops(t, n.disk); len(got) != devices {
		t.Errorf("loop devices of %v, want %d", got, devices)
	}
	volumes, err := n.pools.List(t.Context())
	must(t, err)
	want := 1
	if strings.HasPrefix(c.name, "ephemeral") && !c.absent {
		want = 2
	}
	if st := n.pools.Pools(t.Context())[0]; len(volumes) != want || st.Volumes != want || st.Message != "" {
		t.Errorf("volumes %v, want %d; %+v", volumes, want, st)
	}
	left, err := os.ReadDir(n.path("mounts/live"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > len(c.mounted) {
		t.Errorf("exposed: %v, %v", left, err)
	}
}

// loops are the files below dir that loop devices have (sysfs, loop/backing_file).
func loops(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	var out []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it has just gone
		}
		if name := strings.TrimSpace(string(data)); strings.HasPrefix(name, dir+"/") {
			out = append(out, name)
		}
	}
	return out
}

// reboot leaves of the mounts and devices of the node what a reboot leaves.
func (n *node) reboot() error {
	all, err := mount.AtOrBelow(n.base)
	for _, m := range slices.Backward(all) {
		err = errors.Join(err, mount.Unmount(m.Point))
	}
	ids, listErr := n.pools.List(context.Background())
	err = errors.Join(err, listErr)
	for _, v := range ids {
		err = errors.Join(err, n.pools.Detach(context.Background(), v.ID))
	}
	return err
}
