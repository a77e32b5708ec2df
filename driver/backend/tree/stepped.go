package tree

import (
	"context"

	"github.com/plinth-csi/plinth/driver/volume"
)

// Step is told of each operation on the machine before it is done, and may
// answer with an error instead of it. Tests cut a backend short with one.
type Step func(operation string) error

// Stepped gives a Keeper and Files that ask step before each operation; a nil
// step leaves them as they are.
func Stepped(k Keeper, f Files, step Step) (Keeper, Files) {
	if step == nil {
		return k, f
	}
	return &steppedKeeper{k, step}, &steppedFiles{f, step}
}

type steppedKeeper struct {
	Keeper
	step Step
}

// Stat implements Keeper.
func (s *steppedKeeper) Stat(name string) (Dir, error) {
	if err := s.step("stat " + name); err != nil {
		return Dir{}, err
	}
	return s.Keeper.Stat(name)
}

// Make implements Keeper.
func (s *steppedKeeper) Make(name string, l Limits) error {
	if err := s.step("make " + name); err != nil {
		return err
	}
	return s.Keeper.Make(name, l)
}

// Limit implements Keeper.
func (s *steppedKeeper) Limit(name string, l Limits) error {
	if err := s.step("limit " + name); err != nil {
		return err
	}
	return s.Keeper.Limit(name, l)
}

// Usage implements Keeper.
func (s *steppedKeeper) Usage(ctx context.Context, name string) (volume.Usage, error) {
	if err := s.step("usage " + name); err != nil {
		return volume.Usage{}, err
	}
	return s.Keeper.Usage(ctx, name)
}

// Free implements Keeper.
func (s *steppedKeeper) Free(ctx context.Context, name string) error {
	if err := s.step("free " + name); err != nil {
		return err
	}
	return s.Keeper.Free(ctx, name)
}

// Include implements Keeper.
func (s *steppedKeeper) Include(ctx context.Context, name string, l Limits) error {
	if err := s.step("include " + name); err != nil {
		return err
	}
	return s.Keeper.Include(ctx, name, l)
}

// Exclude implements Keeper.
func (s *steppedKeeper) Exclude(ctx context.Context, name string) error {
	if err := s.step("exclude " + name); err != nil {
		return err
	}
	return s.Keeper.Exclude(ctx, name)
}

type steppedFiles struct {
	Files
	step Step
}

// Rename implements Files.
func (s *steppedFiles) Rename(from, to string) error {
	if err := s.step("rename " + from + " to " + to); err != nil {
		return err
	}
	return s.Files.Rename(from, to)
}

// SetRoot implements Files.
func (s *steppedFiles) SetRoot(name string, r volume.Root) error {
	if err := s.step("set the root of " + name); err != nil {
		return err
	}
	return s.Files.SetRoot(name, r)
}

// Names implements Files.
func (s *steppedFiles) Names(dir string) ([]string, error) {
	if err := s.step("list " + dir); err != nil {
		return nil, err
	}
	return s.Files.Names(dir)
}

// InUse implements Files.
func (s *steppedFiles) InUse(name string) ([]string, error) {
	if err := s.step("look for mounts of " + name); err != nil {
		return nil, err
	}
	return s.Files.InUse(name)
}

// Trim implements Files.
func (s *steppedFiles) Trim() error {
	if err := s.step("trim"); err != nil {
		return err
	}
	return s.Files.Trim()
}

// Exchange implements Files.
func (s *steppedFiles) Exchange(a, b string) error {
	if err := s.step("exchange " + a + " and " + b); err != nil {
		return err
	}
	return s.Files.Exchange(a, b)
}

// Link implements Files.
func (s *steppedFiles) Link(to, name string) error {
	if err := s.step("link " + name); err != nil {
		return err
	}
	return s.Files.Link(to, name)
}

// Unlink implements Files.
func (s *steppedFiles) Unlink(to, name string) error {
	if err := s.step("unlink " + name); err != nil {
		return err
	}
	return s.Files.Unlink(to, name)
}
