package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plinth-csi/plinth/driver/backend"
	"github.com/plinth-csi/plinth/driver/backend/directory"
	"github.com/plinth-csi/plinth/driver/volume"
)

const origin = "local-path/pvc-1_shop_data"

// importOptions are one pool of directories over dir, cut at c.
func importOptions(dir string, c *cutter) Options {
	o := cutOptions(dir, c)
	o.Config.Pools[0].Backend = BackendDirectory
	o.Config.Pools[0].Quota = QuotaNone
	o.Backends = map[string]OpenBackend{BackendDirectory: func(ctx context.Context, cfg PoolConfig) (backend.Opened, error) {
		b, err := directory.Open(ctx, directory.Options{Dir: cfg.Path, Quota: directory.QuotaNone})
		return cutBackend{b, c}, err
	}}
	return o
}

func (b cutBackend) Imports() error { return b.Opened.(backend.Importer).Imports() }

func (b cutBackend) Import(ctx context.Context, name string, s volume.Spec) (volume.Info, error) {
	if err := b.step("before Import"); err != nil {
		return volume.Info{}, err
	}
	info, err := b.Opened.(backend.Importer).Import(ctx, name, s)
	return info, errors.Join(err, b.step("after Import"))
}

func (b cutBackend) Release(ctx context.Context, id volume.ID, name string) error {
	if err := b.step("before Release"); err != nil {
		return err
	}
	return errors.Join(b.Opened.(backend.Importer).Release(ctx, id, name), b.step("after Release"))
}

var uncut = &cutter{n: -1}

func importRequest() volume.Request {
	r := request("shop-data", 1<<20)
	r.Pool, r.Import = "fast", origin
	return r
}

// foreign makes what another provisioner left in the pool.
func foreignIn(t *testing.T, dir string) {
	t.Helper()
	at := filepath.Join(dir, origin)
	if err := errors.Join(os.MkdirAll(filepath.Join(at, "sub"), 0o777), os.WriteFile(filepath.Join(at, "sub/file"), []byte("theirs"), 0o640)); err != nil {
		t.Fatal(err)
	}
}

// holds checks that a path leads to the data.
func holds(t *testing.T, when, at string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(at, "sub/file")); err != nil || string(got) != "theirs" {
		t.Errorf("%s: at %s is %q, %v", when, at, got, err)
	}
}

// isDir reports whether a directory, and not a link to one, is there.
func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}

// TestImportAndRelease: a directory becomes a volume in place, is to be found
// by its old path all the time, and becomes a directory again.
func TestImportAndRelease(t *testing.T) {
	for _, to := range []volume.Path{origin, "local-path/other", "back"} {
		t.Run(string(to), func(t *testing.T) {
			dir := t.TempDir()
			foreignIn(t, dir)
			before, err := os.Stat(filepath.Join(dir, origin))
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, importOptions(dir, uncut))
			v, err := m.Create(t.Context(), importRequest())
			if err != nil || v.Size != 1<<20 {
				t.Fatal(v, err)
			}
			if again, err := m.Create(t.Context(), importRequest()); err != nil || again.ID != v.ID {
				t.Errorf("again: %+v, %v", again, err)
			}
			src, err := m.Attach(t.Context(), v.ID)
			if err != nil {
				t.Fatal(err)
			}
			holds(t, "imported", src.Dir)
			holds(t, "imported", filepath.Join(dir, origin))
			if now, err := os.Stat(src.Dir); err != nil || !os.SameFile(before, now) {
				t.Errorf("it was copied: %v", err)
			}
			if isDir(filepath.Join(dir, origin)) {
				t.Error("it is not a link that is left")
			}
			at, err := m.Release(t.Context(), "fast", v.ID, to)
			if err != nil || at != filepath.Join(dir, string(to)) {
				t.Fatal(at, err)
			}
			if again, err := m.Release(t.Context(), "fast", v.ID, to); err != nil || again != at {
				t.Errorf("again: %s, %v", again, err)
			}
			if now, err := os.Lstat(at); err != nil || !os.SameFile(before, now) || now.Mode() != before.Mode() {
				t.Errorf("it is another: %v", err)
			}
			holds(t, "released", at)
			if _, err := os.Lstat(filepath.Join(dir, origin)); to != origin && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a link is left: %v", err)
			}
			if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if st := m.Pools(t.Context())[0]; st.Volumes != 0 || st.Reserved != 0 || st.Message != "" {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestImportedDeleted: an imported volume that is deleted is gone, and so is
// the link; a link that is deleted first, as its former provisioner would, does
// not take the data along.
func TestImportedDeleted(t *testing.T) {
	for _, early := range []bool{false, true} {
		dir := t.TempDir()
		foreignIn(t, dir)
		m := open(t, importOptions(dir, uncut))
		v, err := m.Create(t.Context(), importRequest())
		if err != nil {
			t.Fatal(err)
		}
		if early {
			if err := os.RemoveAll(filepath.Join(dir, origin)); err != nil {
				t.Fatal(err)
			}
			holds(t, "without the link", filepath.Join(dir, "volumes", string(v.ID)))
		}
		if err := m.Delete(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
		for _, left := range []string{origin, "volumes/" + string(v.ID)} {
			if _, err := os.Lstat(filepath.Join(dir, left)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", left, err)
			}
		}
	}
}

func TestImportRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*volume.Request)
		put    func(dir string) error
		want   error
		says   string
	}{
		"outside":       {change: func(r *volume.Request) { r.Import = "../x" }, want: volume.ErrInvalid},
		"absolute":      {change: func(r *volume.Request) { r.Import = "/etc" }, want: volume.ErrInvalid},
		"a volume":      {change: func(r *volume.Request) { r.Import = "volumes/a" }, want: volume.ErrInvalid, says: "Plinth's own"},
		"all volumes":   {change: func(r *volume.Request) { r.Import = "volumes" }, want: volume.ErrInvalid, says: "Plinth's own"},
		"the records":   {change: func(r *volume.Request) { r.Import = ".plinth/volumes" }, want: volume.ErrInvalid},
		"Block":         {change: func(r *volume.Request) { r.Mode = volume.Block }, want: volume.ErrInvalid},
		"any pool":      {change: func(r *volume.Request) { r.Pool = "" }, want: volume.ErrInvalid, says: "name the one pool"},
		"with a source": {change: func(r *volume.Request) { r.From.Volume = "a" }, want: volume.ErrInvalid},
		"too small":     {change: func(r *volume.Request) { r.Size = 1 }, want: volume.ErrOutOfRange, says: "holds"},
		"too large":     {change: func(r *volume.Request) { r.Size = 1 << 60 }, want: volume.ErrNoCapacity},
		"not there":     {change: func(r *volume.Request) { r.Import = "none" }, want: volume.ErrInvalid, says: "none"},
		"a file":        {change: func(r *volume.Request) { r.Import = origin + "/sub/file" }, want: volume.ErrInvalid, says: "no directory"},
		"a symlink": {change: func(r *volume.Request) { r.Import = "link" }, put: func(dir string) error { return os.Symlink(origin, filepath.Join(dir, "link")) },
			want: volume.ErrInvalid},
		"through a symlink": {change: func(r *volume.Request) { r.Import = "link/pvc-1_shop_data" }, put: func(dir string) error { return os.Symlink("local-path", filepath.Join(dir, "link")) },
			want: volume.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			foreignIn(t, dir)
			if c.put != nil {
				if err := c.put(dir); err != nil {
					t.Fatal(err)
				}
			}
			m := open(t, importOptions(dir, uncut))
			r := importRequest()
			c.change(&r)
			if v, err := m.Create(t.Context(), r); !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%+v, %v", v, err)
			}
			holds(t, "refused", filepath.Join(dir, origin))
			if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if st := m.Pools(t.Context())[0]; st.Volumes != 0 || st.Message != "" {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestReleaseRefused(t *testing.T) {
	dir := t.TempDir()
	foreignIn(t, dir)
	m := open(t, importOptions(dir, uncut))
	v, err := m.Create(t.Context(), importRequest())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "taken"), 0o755), os.Symlink("/etc", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[volume.Path]error{
		"../x": volume.ErrInvalid, "volumes/b": volume.ErrInvalid, "taken": volume.ErrExists, "link": volume.ErrExists, "none/b": volume.ErrInvalid,
	} {
		if _, err := m.Release(t.Context(), "fast", v.ID, to); !errors.Is(err, want) {
			t.Errorf("%s: %v", to, err)
		}
		if _, err := m.Get(t.Context(), v.ID); err != nil {
			t.Errorf("%s: the volume is %v", to, err)
		}
	}
	memory := open(t, testOptions(t.TempDir()))
	create(t, memory, "a", 1<<20)
	if _, err := memory.Release(t.Context(), "fast", "a", "b"); !errors.Is(err, volume.ErrUnsupported) {
		t.Errorf("another backend: %v", err)
	}
	if _, err := memory.Create(t.Context(), importRequest()); !errors.Is(err, volume.ErrUnsupported) {
		t.Errorf("another backend: %v", err)
	}
}

// TestImportCuts cuts import, release and deletion at each of their steps, and
// what opening does after that at each of its: the data is never touched, it is
// to be found by its old path or by the one it was released to, and what is
// repeated succeeds.
func TestImportCuts(t *testing.T) {
	const to = "local-path/given-back"
	for _, deleted := range []bool{false, true} {
		for n, through := 0, false; !through; n++ {
			for again := range 4 {
				dir := t.TempDir()
				foreignIn(t, dir)
				cut := &cutter{n: n}
				m := open(t, importOptions(dir, cut))
				v, err := m.Create(t.Context(), importRequest())
				imported := err == nil
				if imported && !deleted {
					_, err = m.Release(t.Context(), "fast", v.ID, to)
				} else if imported {
					err = m.Delete(t.Context(), v.ID)
				}
				m.Close()
				if err != nil && !errors.Is(err, errCut) {
					t.Fatalf("step %d: %v", n, err)
				}
				through = err == nil
				m = open(t, importOptions(dir, &cutter{n: again})) // cut while it recovers
				m.Close()
				m = open(t, importOptions(dir, uncut))
				when := fmt.Sprintf("cut at %d and %d", n, again)
				if st := m.Pools(t.Context())[0]; st.Message != "" {
					t.Errorf("%s: %s", when, st.Message)
				}
				switch {
				case imported && deleted:
					if err := m.Delete(t.Context(), v.ID); err != nil {
						t.Fatalf("%s: %v", when, err)
					}
				case imported:
					if _, err := m.Release(t.Context(), "fast", v.ID, to); err != nil {
						t.Fatalf("%s: %v", when, err)
					}
					holds(t, when, filepath.Join(dir, to))
				default:
					holds(t, when, filepath.Join(dir, origin))
					if v, err = m.Create(t.Context(), importRequest()); err != nil {
						t.Fatalf("%s: again: %v", when, err)
					}
					holds(t, when, filepath.Join(dir, origin))
					if _, err := m.Release(t.Context(), "fast", v.ID, origin); err != nil || !isDir(filepath.Join(dir, origin)) {
						t.Fatalf("%s: back: %v", when, err)
					}
					holds(t, when, filepath.Join(dir, origin))
				}
				if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) > 0 {
					t.Errorf("%s: left %v, %v", when, left, err)
				}
				m.Close()
			}
		}
	}
}
